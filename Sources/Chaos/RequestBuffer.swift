import Foundation

/// The bytes of one connection, and the requests in them. As much of HTTP as dispatchers speak to a receiver: requests
/// with a length, one after the other.
struct RequestBuffer {
  /// Requests that are longer, head and body, are none of ours.
  static let limitBytes = 65_536

  /// Valid only while the buffer stands still.
  struct Request {
    var path: UnsafeRawBufferPointer
    var id: String?
    var timestamp: String?
    var signature: String?
    var body: UnsafeRawBufferPointer
    /// The value of the payload's member `n`: `{"type":…,"data":{"n": 17, …}}` is 17.
    var number: Int?
  }

  enum Next<Value> {
    case incomplete
    /// Not HTTP, or too long.
    case malformed
    case whole(Value)
  }

  private var bytes = [UInt8](repeating: 0, count: 4096)
  private var end = 0

  /// Reads what has come; false at the end of the connection.
  mutating func receive(from descriptor: Int32) -> Bool {
    if end == bytes.count {
      guard bytes.count < Self.limitBytes else { return false }
      bytes += [UInt8](repeating: 0, count: bytes.count)
    }
    let (start, room) = (end, bytes.count - end)
    let count = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + start, room, 0) }
    guard count > 0 else { return false }
    end += count
    return true
  }

  /// Calls `body` with the next whole request, and forgets it.
  mutating func next<Value>(_ body: (Request) -> Value) -> Next<Value> {
    let (result, length) = bytes.withUnsafeBytes { all -> (Next<Value>, Int) in
      let text = UnsafeRawBufferPointer(rebasing: all[..<end])
      guard let headEnd = text.find("\r\n\r\n") else { return (.incomplete, 0) }
      guard var request = Self.parse(text, headEnd) else { return (.malformed, 0) }
      let total = headEnd + 4 + request.bodyLength
      guard total <= Self.limitBytes else { return (.malformed, 0) }
      guard total <= text.count else { return (.incomplete, 0) }
      request.found.body = UnsafeRawBufferPointer(rebasing: text[(headEnd + 4)..<total])
      request.found.number = Self.number(in: request.found.body)
      return (.whole(body(request.found)), total)
    }
    if length > 0 {
      let rest = end - length
      if rest > 0 { bytes.withUnsafeMutableBytes { $0.copyBytes(from: Array($0[length..<end])) } }
      end = rest
    }
    return result
  }

  private static func parse(_ text: UnsafeRawBufferPointer, _ headEnd: Int) -> (found: Request, bodyLength: Int)? {
    let empty = UnsafeRawBufferPointer(start: nil, count: 0)
    var request = Request(path: empty, body: empty)
    var length: Int?
    var start = 0
    while start < headEnd {
      let rest = UnsafeRawBufferPointer(rebasing: text[start..<(headEnd + 2)])
      guard let size = rest.find("\r\n") else { return nil }
      let line = UnsafeRawBufferPointer(rebasing: rest[..<size])
      if start == 0 {
        let words = line.split(separator: UInt8(ascii: " "))
        guard words.count == 3 else { return nil }
        request.path = UnsafeRawBufferPointer(rebasing: words[1])
      } else if let colon = line.firstIndex(of: UInt8(ascii: ":")) {
        let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
        var value: String { String(decoding: line[(colon + 1)...].drop { $0 == UInt8(ascii: " ") }, as: UTF8.self) }
        if name.isName("webhook-id") {
          request.id = value
        } else if name.isName("webhook-timestamp") {
          request.timestamp = value
        } else if name.isName("webhook-signature") {
          request.signature = value
        } else if name.isName("content-length") {
          length = Int(value)
        }
      }
      start += size + 2
    }
    guard let length, length >= 0 else { return nil }
    return (request, length)
  }

  private static func number(in body: UnsafeRawBufferPointer) -> Int? {
    guard let at = body.find(#""n": "#) else { return nil }
    var number: Int?
    for byte in body[(at + 5)...] {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { break }
      let (tens, overflow) = (number ?? 0).multipliedReportingOverflow(by: 10)
      guard !overflow, tens < .max - 10 else { return nil }
      number = tens + Int(byte - UInt8(ascii: "0"))
    }
    return number
  }
}

extension UnsafeRawBufferPointer {
  /// The offset of the first occurrence.
  fileprivate func find(_ needle: StaticString) -> Int? {
    guard let start = baseAddress else { return nil }
    let size = needle.utf8CodeUnitCount
    var offset = 0
    while offset + size <= count,
      let next = memchr(start + offset, Int32(needle.utf8Start[0]), count - size - offset + 1)
    {
      offset = UnsafeRawPointer(next) - start
      if memcmp(next, needle.utf8Start, size) == 0 { return offset }
      offset += 1
    }
    return nil
  }

  /// In any case; `name` in lower case.
  fileprivate func isName(_ name: StaticString) -> Bool {
    guard count == name.utf8CodeUnitCount, let start = baseAddress else { return false }
    return strncasecmp(
      start.assumingMemoryBound(to: CChar.self),
      UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self),
      count
    ) == 0
  }
}
