/// Checks headers an operator wants sent with every request to an endpoint.
package enum HTTPHeader {
  package static let nameLimitBytes = 256
  package static let valueLimitBytes = 4096

  /// Headers that belong to the protocol or to the signature; a second one would break either.
  private static let reservedNames: Set<String> = [
    "host", "content-length", "content-type", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade",
    "keep-alive", "traceparent", "tracestate",
  ]
  private static let reservedPrefixes = ["proxy-", "webhook-", "ce-"]

  /// What is wrong with a header, in words for the person who typed it; nil when it can be sent.
  package static func problem(name: String, value: String) -> String? {
    guard !name.isEmpty else { return "the header name is empty" }
    guard name.utf8.count <= nameLimitBytes else { return "the header name is longer than \(nameLimitBytes) bytes" }
    guard name.utf8.allSatisfy(isTokenByte) else {
      return "the header name may contain only letters, digits and !#$%&'*+-.^_`|~"
    }
    let lowercased = name.lowercased()
    if reservedNames.contains(lowercased) || reservedPrefixes.contains(where: lowercased.hasPrefix) {
      return "the header \(name) is set by Martlet itself; choose another name"
    }
    // libcurl takes a line without a value as "do not send this header".
    guard value.utf8.contains(where: { $0 != 0x20 && $0 != 0x09 }) else { return "the value of \(name) is empty" }
    guard value.utf8.count <= valueLimitBytes else {
      return "the value of \(name) is longer than \(valueLimitBytes) bytes"
    }
    guard !value.utf8.contains(where: isForbiddenInLine) else {
      return "the value of \(name) contains a line break or another control character"
    }
    return nil
  }

  /// RFC 9110, section 5.6.2.
  static func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
    case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E: true
    default: false
    }
  }

  /// Control characters, except the tab: a CR or LF would start a header, or a request, of its own.
  @inline(__always)
  static func isForbiddenInLine(_ byte: UInt8) -> Bool {
    (byte < 0x20 && byte != 0x09) || byte == 0x7F
  }
}
