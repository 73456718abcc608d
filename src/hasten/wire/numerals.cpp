// Flat lists of JSON numbers, read straight into the bytes of a tensor: no object for each number.
//
// It knows one answer: the numbers, where the text is a flat list of as many as expected, each within the range of its type. All else is
// None, and tensors.py, which reads the same without this module, finds out what it is and says it. So there are no rules here that it has
// not, and where both read a text they come to equal bytes (tests/wire/test_numerals.py).
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Tensors are little-endian on the wire, and this copies numbers as they lie in memory."
#endif

namespace {

// A decimal of so many digits fits 64 bits.
constexpr int kDigits = 19;
// Integers up to this, and these powers of ten, are exact as doubles, so that one division rounds correctly (Clinger, "How to read floating
// point numbers accurately", 1990).
constexpr std::uint64_t kExact = std::uint64_t{1} << 53;
constexpr double kTens[kDigits + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                                       1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};

struct Cursor {
  const char* at;
  const char* end;

  bool takes(char wanted) {
    if (at == end || *at != wanted) return false;
    ++at;
    return true;
  }

  bool digit() const { return at != end && *at >= '0' && *at <= '9'; }

  // Takes digits behind those of `value`, which is right as long as there are no more than kDigits of them.
  Py_ssize_t digits(std::uint64_t& value) {
    const char* first = at;
    while (digit()) value = value * 10 + static_cast<std::uint64_t>(*at++ - '0');
    return at - first;
  }

  void blanks() {
    while (at != end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
  }
};

// The digits before a point: none too few, and no zero before another.
bool whole(Cursor& in, std::uint64_t& value, Py_ssize_t& digits) {
  const char* first = in.at;
  digits = in.digits(value);
  return digits == 1 || (digits > 1 && *first != '0');
}

// Whether all that lies around a double, farther than two roundings can lead, is the same float: then the nearest double of the decimal is,
// too. So it is with nearly all decimals that were floats before they were printed.
bool unmistakable(double value, float) {
  constexpr double kAround = 0x1p-50;
  return static_cast<float>(value - value * kAround) == static_cast<float>(value + value * kAround);
}

bool unmistakable(double, double) { return false; }

template <typename T>
std::enable_if_t<std::is_floating_point_v<T>, bool> number(Cursor& in, T& out) {
  const char* first = in.at;
  const bool negative = in.takes('-');
  std::uint64_t decimal = 0;
  Py_ssize_t digits, places = 0;
  if (!whole(in, decimal, digits)) return false;
  const bool fraction = in.takes('.');
  if (fraction && (places = in.digits(decimal)) == 0) return false;
  const bool exponent = in.takes('e') || in.takes('E');
  if (exponent) {
    std::uint64_t ignored = 0;
    if (!in.takes('-')) in.takes('+');
    if (in.digits(ignored) == 0) return false;
  }
  // -0 is an integer, which has no sign.
  if (negative && !fraction && !exponent && decimal == 0) return false;
  if (!exponent && digits + places <= kDigits) {
    const double value = static_cast<double>(decimal) / kTens[places];
    out = static_cast<T>(negative ? -value : value);
    if (decimal <= kExact || unmistakable(value, out)) return std::isfinite(out);
  }
#ifdef __cpp_lib_to_chars
  double value;
  if (std::from_chars(first, in.at, value).ec != std::errc()) return false;
  out = static_cast<T>(value);
  return std::isfinite(out);
#else
  return false;
#endif
}

template <typename T>
std::enable_if_t<std::is_integral_v<T>, bool> number(Cursor& in, T& out) {
  const bool negative = in.takes('-');
  std::uint64_t value = 0;
  Py_ssize_t digits;
  if (!whole(in, value, digits) || digits > kDigits) return false;
  const auto most = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
  if (value > most || (negative && std::is_unsigned_v<T> && value)) return false;
  out = static_cast<T>(negative ? 0 - value : value);
  return true;
}

template <typename T>
bool list(Cursor in, char* out, Py_ssize_t count) {
  in.blanks();
  if (!in.takes('[')) return false;
  for (Py_ssize_t index = 0; index < count; ++index, out += sizeof(T)) {
    in.blanks();
    if (index) {
      if (!in.takes(',')) return false;
      in.blanks();
    }
    T value;
    if (!number(in, value)) return false;
    std::memcpy(out, &value, sizeof(T));
  }
  in.blanks();
  if (!in.takes(']')) return false;
  in.blanks();
  return in.at == in.end;
}

struct Kind {
  int letter;
  Py_ssize_t size;
  bool (*list)(Cursor, char*, Py_ssize_t);
};

template <typename T>
constexpr Kind kind(char letter) {
  return {letter, sizeof(T), list<T>};
}

// By the letters of Python's struct module.
constexpr Kind kKinds[] = {kind<float>('f'),         kind<double>('d'),        kind<std::int8_t>('b'),  kind<std::uint8_t>('B'),
                           kind<std::int16_t>('h'),  kind<std::uint16_t>('H'), kind<std::int32_t>('i'), kind<std::uint32_t>('I'),
                           kind<std::int64_t>('q'),  kind<std::uint64_t>('Q')};

PyObject* flat(const Kind& kind, const Py_buffer& text, Py_ssize_t count) {
  // n numbers take 2 n + 1 characters at least: a shape cannot ask for more memory than its data have brought.
  if (count < 0 || count > text.len / 2) Py_RETURN_NONE;
  PyObject* packed = PyBytes_FromStringAndSize(nullptr, count * kind.size);
  if (!packed) return nullptr;
  const char* begin = static_cast<const char*>(text.buf);
  if (kind.list({begin, begin + text.len}, PyBytes_AS_STRING(packed), count)) return packed;
  Py_DECREF(packed);
  Py_RETURN_NONE;
}

PyObject* read(PyObject*, PyObject* const* given, Py_ssize_t number_given) {
  if (number_given != 3 || !PyUnicode_Check(given[1]) || PyUnicode_GetLength(given[1]) != 1) {
    PyErr_SetString(PyExc_TypeError, "read() takes a text, a letter and a count");
    return nullptr;
  }
  // Only kinds other than integers are refused here: one beyond all memory counts as the most there is.
  const Py_ssize_t count = PyNumber_AsSsize_t(given[2], nullptr);
  if (count == -1 && PyErr_Occurred()) return nullptr;
  const int letter = static_cast<int>(PyUnicode_ReadChar(given[1], 0));
  for (const Kind& kind : kKinds) {
    if (kind.letter != letter) continue;
    Py_buffer text;
    if (PyObject_GetBuffer(given[0], &text, PyBUF_SIMPLE) < 0) return nullptr;
    PyObject* packed = flat(kind, text, count);
    PyBuffer_Release(&text);
    return packed;
  }
  return PyErr_Format(PyExc_ValueError, "read() knows no numbers %R", given[1]);
}

PyMethodDef kMethods[] = {
    {"read", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(read)), METH_FASTCALL, "See numerals.pyi."},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "numerals", "Flat lists of JSON numbers.", 0, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_numerals() { return PyModule_Create(&kModule); }
