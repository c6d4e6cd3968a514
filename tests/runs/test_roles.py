from mpl_tf.runs.roles import final_role, role_name


def test_a_run_ends_with_the_finetuned_student_where_there_is_one():
    assert final_role(["finetuned", "student", "teacher"]) == "finetuned"
    assert final_role(["student", "supervised", "teacher"]) == "student"
    assert final_role({"teacher": 1}) is None


def test_roles_have_names():
    assert role_name("finetuned") == "fine-tuned student"
    assert role_name("round_1") == "round 1"
