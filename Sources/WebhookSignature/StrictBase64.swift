/// Base64 as RFC 4648 §4 writes it, and nothing else.
///
/// Foundation's decoder ignores the unused bits of the last character, so that several texts decode to the same bytes:
/// two spellings of one secret would then both work, and comparing configured secrets as text would mislead. This
/// decoder accepts exactly the one text the encoder writes. The encoder writes into memory the caller owns, so that a
/// signature costs no intermediate buffer.
enum StrictBase64 {
  /// The number of characters, padding included, that encode `byteCount` bytes.
  static func encodedCount(ofBytes byteCount: Int) -> Int {
    (byteCount + 2) / 3 * 4
  }

  /// Writes the encoding of `bytes` at the start of `output`, which must hold ``encodedCount(ofBytes:)`` bytes.
  static func encode(_ bytes: UnsafeRawBufferPointer, into output: UnsafeMutableBufferPointer<UInt8>) {
    precondition(output.count >= encodedCount(ofBytes: bytes.count), "StrictBase64: the output buffer is too small")
    alphabet.withUTF8Buffer { letters in
      var read = 0
      var write = 0
      while read + 3 <= bytes.count {
        let group = UInt32(bytes[read]) << 16 | UInt32(bytes[read + 1]) << 8 | UInt32(bytes[read + 2])
        output[write] = letters[Int(group >> 18)]
        output[write + 1] = letters[Int(group >> 12 & 63)]
        output[write + 2] = letters[Int(group >> 6 & 63)]
        output[write + 3] = letters[Int(group & 63)]
        read += 3
        write += 4
      }
      let left = bytes.count - read
      guard left > 0 else { return }
      let group = UInt32(bytes[read]) << 16 | (left == 2 ? UInt32(bytes[read + 1]) << 8 : 0)
      output[write] = letters[Int(group >> 18)]
      output[write + 1] = letters[Int(group >> 12 & 63)]
      output[write + 2] = left == 2 ? letters[Int(group >> 6 & 63)] : padding
      output[write + 3] = padding
    }
  }

  static func encode(_ bytes: UnsafeRawBufferPointer) -> String {
    let count = encodedCount(ofBytes: bytes.count)
    return String(unsafeUninitializedCapacity: count) { output in
      encode(bytes, into: output)
      return count
    }
  }

  /// The bytes that `text` encodes, or nil where `text` is not the one canonical encoding of any bytes: a length that
  /// is not a multiple of four, padding elsewhere than at the end, a character outside the standard alphabet
  /// (whitespace, `-` and `_` included), or unused bits that are not zero.
  static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
    guard text.count.isMultiple(of: 4) else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3)
    var group: UInt32 = 0
    var letters = 0
    var paddings = 0
    for character in text {
      if character == padding {
        paddings += 1
        guard paddings <= 2 else { return nil }
        group <<= 6
      } else {
        guard paddings == 0, let value = value(of: character) else { return nil }
        group = group << 6 | value
      }
      letters += 1
      guard letters == 4 else { continue }
      bytes.append(UInt8(truncatingIfNeeded: group >> 16))
      if paddings < 2 { bytes.append(UInt8(truncatingIfNeeded: group >> 8)) }
      if paddings < 1 { bytes.append(UInt8(truncatingIfNeeded: group)) }
      // Bits below the last whole byte must be zero, or a second text would decode to the same bytes.
      guard group & (paddings == 2 ? 0xFFFF : paddings == 1 ? 0xFF : 0) == 0 else { return nil }
      group = 0
      letters = 0
    }
    return bytes
  }

  private static let padding = UInt8(ascii: "=")
  private static var alphabet: StaticString { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" }

  private static func value(of character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
