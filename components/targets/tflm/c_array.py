"""A model as C++ source, for a microcontroller without files."""

HEADER, SOURCE = "model.h", "model.cc"
_A_LINE = 16
ALIGNMENT = 16  # that of buffers in the schema, and of TFLite Micro's own models

_HEADER = """#ifndef {guard}
#define {guard}

#include <cstddef>

alignas({alignment}) extern const unsigned char {name}[];
extern const std::size_t {name}_size;

#endif  // {guard}
"""


def c_array(content: bytes, name: str) -> dict[str, bytes]:
    """Returns the files model.h and model.cc: the content as an array of that name, aligned to 16 bytes.

    Args:
      content: A TFLite flatbuffer.
      name: An identifier of C.

    >>> print(c_array(bytes([1, 255]), "g_model")["model.cc"].decode())
    #include "model.h"
    <BLANKLINE>
    alignas(16) const unsigned char g_model[] = {
    0x01,0xff,
    };
    const std::size_t g_model_size = sizeof(g_model);
    <BLANKLINE>
    """
    digits = content.hex()
    values = [f"0x{digits[i : i + 2]}," for i in range(0, len(digits), 2)]
    lines = "\n".join("".join(values[i : i + _A_LINE]) for i in range(0, len(values), _A_LINE))
    source = (
        f'#include "{HEADER}"\n\nalignas({ALIGNMENT}) const unsigned char {name}[] = {{\n{lines}\n}};\n'
        f"const std::size_t {name}_size = sizeof({name});\n"
    )
    header = _HEADER.format(guard=f"{name.upper()}_H_", alignment=ALIGNMENT, name=name)
    return {HEADER: header.encode(), SOURCE: source.encode()}
