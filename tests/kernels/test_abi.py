"""Offsets that the CPU kernels rely on, derived from the header of the interface that jaxlib ships."""

import shutil
import subprocess

import jax
import pytest

from jaxptycho.kernels.cpu_llvm import abi


def test_the_installed_jaxlib_has_the_fields_where_they_are_read():
    abi.require_layout()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_offsets_are_those_of_a_c_compiler(tmp_path):
    """Every field of every struct, by `offsetof`."""
    offsets = abi.offsets(abi.header_text())
    assert len(offsets) > 150
    lines = [
        f'printf("%zu\\n", offsetof({s}, {p}));' for s, p in (n.split(".", 1) for n in offsets)
    ]
    source = tmp_path / "offsets.c"
    includes = f"#include <stdio.h>\n#include <stddef.h>\n#include <{abi.HEADER}>\n"
    source.write_text(includes + "int main() {" + "\n".join(lines) + "return 0;}")
    program = tmp_path / "offsets"
    subprocess.run(["cc", "-w", f"-I{jax.ffi.include_dir()}", source, "-o", program], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert list(map(int, said.split())) == list(offsets.values())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  int64_t rank;\n", "", "XLA_FFI_Buffer.rank is missing \\(expected 32\\); .*dims is 32"),
        (
            "  void* data;\n  int64_t rank;",
            "  int64_t rank;\n  void* data;",
            "data is 32 .*rank is 24",
        ),
        (
            "  XLA_FFI_Args args;",
            "  void* more;\n  XLA_FFI_Args args;",
            r"args.args is 80 \(expected 72\)",
        ),
        ("#define XLA_FFI_API_MAJOR 0", "#define XLA_FFI_API_MAJOR 1", "XLA_FFI_API_MAJOR is 1"),
        ("Extension_Metadata = 1", "Extension_Metadata = 2", "Extension_Metadata is 2"),
        ("  int64_t rank;", "  long double rank;", "XLA_FFI_Buffer.data is missing"),
    ],
)
def test_a_moved_field_is_named_in_one_sentence(before, after, said):
    header = abi.header_text()
    assert before in header
    with pytest.raises(RuntimeError, match=said) as caught:
        abi.require_layout(header.replace(before, after))
    assert "JAXPTYCHO_KERNELS=jnp" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_structs_of_unknown_types_do_not_disturb():
    abi.require_layout(
        abi.header_text() + "\nstruct New {\n  bool flags[4];\n  unsigned long n;\n};\n"
    )
