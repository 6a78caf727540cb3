/// What is signed: `id`, a full stop, the timestamp, a full stop, the body. Standard Webhooks 1.0.0, "Signature scheme".
///
/// Only the part before the body is ever put together; the body is hashed where it lies.
enum SignedContent {
  /// Calls `use` with the bytes of `id.timestamp.`, in memory that is gone afterwards.
  static func withPrefix<Result>(
    id: String,
    timestamp: Int,
    _ use: (UnsafeRawBufferPointer) -> Result
  ) -> Result {
    var id = id
    return id.withUTF8 { idBytes in
      // A 64-bit integer has at most 19 digits and a sign.
      withUnsafeTemporaryAllocation(byteCount: idBytes.count + 22, alignment: 1) { buffer in
        buffer.copyMemory(from: UnsafeRawBufferPointer(idBytes))
        var end = idBytes.count
        buffer[end] = stop
        end = writeDecimal(timestamp, into: buffer, at: end + 1)
        buffer[end] = stop
        return use(UnsafeRawBufferPointer(rebasing: buffer[...end]))
      }
    }
  }

  /// Writes `number` as decimal ASCII and returns the index after its last digit.
  private static func writeDecimal(_ number: Int, into buffer: UnsafeMutableRawBufferPointer, at start: Int) -> Int {
    var first = start
    if number < 0 {
      buffer[first] = UInt8(ascii: "-")
      first += 1
    }
    var end = first
    var rest = number.magnitude
    repeat {
      buffer[end] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
      rest /= 10
      end += 1
    } while rest > 0
    buffer[first..<end].reverse()
    return end
  }

  private static var stop: UInt8 { UInt8(ascii: ".") }
}
