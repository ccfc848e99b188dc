#!/usr/bin/env python3
"""The checks of check.py find what they are for."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check  # noqa: E402


class CheckTest(unittest.TestCase):
    def breaches(self, **files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = os.path.join(root, name.replace("__", "/").replace("_dot_", "."))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w") as f:
                    f.write(text)
            return list(check.breaches(root))

    def test_unregistered_test_is_found(self):
        found = self.breaches(tests__a__x_test_dot_cc="", tests__a__CMakeLists_dot_txt="shoal_test(y SOURCES yx_test.cc)")
        self.assertEqual(len(found), 1)
        self.assertIn("tests/a/x_test.cc", found[0])

    def test_commented_registration_does_not_count(self):
        found = self.breaches(tests__x_test_dot_cc="", tests__CMakeLists_dot_txt="# shoal_test(x SOURCES x_test.cc)")
        self.assertEqual(len(found), 1)

    def test_registered_by_a_folder_above(self):
        self.assertEqual([], self.breaches(common__rpc__a_dot_cc="", common__CMakeLists_dot_txt="add_library(c rpc/a.cc)"))

    def test_long_file_is_found(self):
        found = self.breaches(common__a_dot_h="\n" * 1001)
        self.assertEqual(len(found), 1)
        self.assertIn("1001", found[0])

    def test_class_without_comment_is_found(self):
        text = ("namespace shoal {\n\nclass A {\n  struct Inner { int x; };\n};\n"
                "// What B is.\nclass B : public A {\n};\nclass C;\n"
                "// T.\ntemplate <typename X>\nstruct T { X x; };\n"
                "enum class E { kA };\n\nstruct D final : A {\n};\n}\n")
        found = self.breaches(common__a_dot_h=text)
        self.assertEqual(2, len(found), found)
        self.assertIn("A has no contract", found[0])
        self.assertIn("D has no contract", found[1])

    def test_empty_tree_is_a_breach(self):
        self.assertEqual(1, len(self.breaches()))


if __name__ == "__main__":
    unittest.main()
