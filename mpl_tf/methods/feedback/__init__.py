"""The student's feedback to the teacher: estimators, settings, and the student's side of it."""
