"""A model as C++ source, for a microcontroller without files."""

HEADER, SOURCE = "model.h", "model.cc"
# What cannot name an array: keywords, and the namespace that the source includes.
# https://en.cppreference.com/w/cpp/keywords
_RESERVED = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class co_await
co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace
new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires return
short signed sizeof static static_assert static_cast std struct switch template this thread_local throw true try
typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
"""
RESERVED = frozenset(_RESERVED.split())
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
