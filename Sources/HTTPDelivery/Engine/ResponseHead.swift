/// Checks what libcurl is lenient about in a response's header. A pure value.
///
/// An answer that is not valid HTTP proves no delivery, and where two readers disagree about its length, one of them takes
/// the rest for the answer to the next request.
package struct ResponseHead {
  package enum Problem: String {
    case statusLine = "its status line is not valid"
    case contentLength = "its Content-Length is not valid"
    case contentLengths = "it has two different lengths"
  }

  private var contentLength: Int?

  package init() {}

  /// Takes one line, as received.
  package mutating func take(_ line: UnsafeRawBufferPointer, isHTTP2: @autoclosure () -> Bool) -> Problem? {
    guard let first = line.first else { return nil }
    // 'H'; another header may begin with it, but with no slash in its name.
    if first == 0x48, line.starts(with: "HTTP/".utf8) {
      contentLength = nil
      return Self.isStatusLine(line) || (Self.isHTTP2StatusLine(line) && isHTTP2()) ? nil : .statusLine
    }
    guard first | 0x20 == 0x63, let value = Self.contentLengthValue(line) else { return nil }
    guard let length = Self.number(value) else { return .contentLength }
    guard contentLength == nil || contentLength == length else { return .contentLengths }
    contentLength = length
    return nil
  }

  /// `HTTP/1.1 200`, then a space or the end (RFC 9112, section 4); version 1.0 as well.
  private static func isStatusLine(_ line: UnsafeRawBufferPointer) -> Bool {
    guard line.count >= 13, line.starts(with: "HTTP/1.".utf8), line[7] == 0x30 || line[7] == 0x31, line[8] == 0x20
    else {
      return false
    }
    return line[9..<12].allSatisfy(isDigit) && (line[12] == 0x20 || line[12] == 0x0D || line[12] == 0x0A)
  }

  /// libcurl writes one for HTTP/2, which has none: `HTTP/2 200 `.
  private static func isHTTP2StatusLine(_ line: UnsafeRawBufferPointer) -> Bool {
    line.count >= 11 && line.starts(with: "HTTP/2 ".utf8) && line[7..<10].allSatisfy(isDigit) && line[10] == 0x20
  }

  /// What follows `Content-Length:`, without the blanks around it.
  private static func contentLengthValue(_ line: UnsafeRawBufferPointer) -> Slice<UnsafeRawBufferPointer>? {
    let name = "content-length:".utf8
    guard line.count >= name.count, zip(line, name).allSatisfy({ $0 == $1 || isLetter($1) && $0 | 0x20 == $1 }) else {
      return nil
    }
    let isBlank: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D || $0 == 0x0A }
    let value = line[name.count...].drop(while: isBlank)
    guard let last = value.lastIndex(where: { !isBlank($0) }) else { return value.prefix(0) }
    return value[...last]
  }

  /// Digits only (RFC 9110, section 8.6).
  private static func number(_ digits: Slice<UnsafeRawBufferPointer>) -> Int? {
    guard !digits.isEmpty, digits.count <= 18, digits.allSatisfy(isDigit) else { return nil }
    return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
  }

  private static func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) }
  private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
}
