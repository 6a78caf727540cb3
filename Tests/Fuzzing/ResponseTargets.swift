import Glibc
import HTTPDelivery

extension FuzzTarget {
  /// What a strict reading of RFC 9112 refuses in a status line or a length is refused, and nothing else.
  static let responseHead = FuzzTarget(name: "response-head") { random in
    var head = ResponseHead()
    var reference = ReferenceHead()
    var isClean = true
    for _ in 0..<(1 + random.below(5)) {
      let line = random.mutated(random.pick(lines), lineWords)
      let problem = line.withUnsafeBytes { head.take($0, isHTTP2: false) }
      let expected = reference.problem(line)
      try require(
        problem?.rawValue == expected,
        "\(problem?.rawValue ?? "accepted"), by hand \(expected ?? "accepted")",
        line
      )
      isClean = isClean && problem == nil
    }
    return isClean
  }

  /// Seconds as digits say, dates as the C library reckons.
  static let retryAfter = FuzzTarget(name: "retry-after") { random in
    let text = random.mutatedText(
      random.pick([
        "120", "0", "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:60 GMT", "Thu, 29 Feb 2024 00:00:00 GMT",
        "999999999999",
      ]),
      [" GMT", ", ", ":", "Feb", "Mar", "1970", "0000", "31", "99999999999999999999", " ", "\t", "+", "-1"]
    )
    let trimmed = Array(text.utf8).trimmed { $0 == 0x20 || $0 == 0x09 }
    switch RetryAfter(parsing: text) {
    case .seconds(let seconds):
      let digits = String(decoding: trimmed, as: UTF8.self)
      try require(trimmed.allSatisfy { (0x30...0x39).contains($0) }, "seconds that are no digits", text)
      let number = trimmed.count > 18 ? Double(digits) ?? -1 : Double(Int(digits) ?? -1)
      try require(Double(seconds) == min(number, 366 * 86_400), "\(seconds) seconds", text)
      return true
    case .date(let unixSeconds):
      // At fixed places, and the arithmetic is the C library's.
      func number(_ range: Range<Int>) -> Int32? { Int32(String(decoding: trimmed[range], as: UTF8.self)) }
      let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
      guard trimmed.count == 29, let day = number(5..<7), let year = number(12..<16), let hour = number(17..<19),
        let minute = number(20..<22), let second = number(23..<25),
        let month = months.firstIndex(of: String(decoding: trimmed[8..<11], as: UTF8.self))
      else { throw FuzzFinding("a date that cannot be read", text) }
      var parts = tm()
      parts.tm_mday = day
      parts.tm_mon = Int32(month)
      parts.tm_year = year - 1900
      parts.tm_hour = hour
      parts.tm_min = minute
      parts.tm_sec = second
      try require(timegm(&parts) == unixSeconds, "the C library says \(timegm(&parts)), we \(unixSeconds)", text)
      return true
    case nil:
      try require(
        trimmed.isEmpty || trimmed.count > 100 || !trimmed.allSatisfy { (0x30...0x39).contains($0) },
        "digits refused",
        text
      )
      return false
    }
  }

  /// What passes is one line and a token, and nothing that Martlet sets itself.
  static let header = FuzzTarget(name: "header") { random in
    let name = random.mutatedText(
      random.pick(["X-Shop", "Accept", "Host", "Webhook-Id", "content-length", "ce-id", "Proxy-Authorization", "TE"]),
      ["-", ":", "\r\n", "id"]
    )
    let value = random.mutatedText(
      random.pick(["a value", "1, 2;q=0.5", "\"quoted\""]),
      ["\r\n", "\r", "\n", "\u{0}", "\u{85}", "Host: evil"]
    )
    guard HTTPHeader.problem(name: name, value: value) == nil else { return false }
    let token = Set("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)
    try require(!name.isEmpty && name.utf8.allSatisfy(token.contains), "the name is no token", name)
    try require(
      value.utf8.allSatisfy { $0 == 0x09 || $0 >= 0x20 && $0 != 0x7F },
      "the value has a control character",
      value
    )
    let own = [
      "host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect",
      "keep-alive",
    ]
    let lowercase = String(decoding: name.utf8.map { (0x41...0x5A).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
    try require(
      !own.contains(lowercase) && !["webhook-", "ce-", "proxy-"].contains { lowercase.hasPrefix($0) },
      "it is Martlet's own",
      name
    )
    return true
  }

  private static let lines = [
    "HTTP/1.1 200 OK\r\n", "HTTP/1.0 503 \r\n", "HTTP/1.1 204\r\n", "Content-Length: 5\r\n", "content-length:17\r\n",
    "CONTENT-LENGTH: \t 5 \r\n",
    "Transfer-Encoding: chunked\r\n", "Content-Type: text/plain\r\n", "\r\n", "HTTP/2 200 \r\n", "Cookie: c\r\n",
    "Host: h\r\n",
  ]
  private static let lineWords = [
    "HTTP/", "HTTP/1.1", "Content-Length", ":", " ", "5", "5, 5", "+5", "0x5", "-1", "99999999999999999999", "\r\n",
    "\n", "\t", "200",
  ]
}

/// Status line and lengths, read character by character.
private struct ReferenceHead {
  private var length: Int?

  mutating func problem(_ line: [UInt8]) -> String? {
    let text = line.map { Character(Unicode.Scalar($0)) }
    let characters = Array(text)
    func isDigit(_ character: Character) -> Bool { "0123456789".contains(character) }
    if String(characters.prefix(5)) == "HTTP/" {
      length = nil
      let isVersion = ["HTTP/1.0 ", "HTTP/1.1 "].contains(String(characters.prefix(9)))
      let isValid =
        isVersion && line.count >= 13 && characters[9..<12].allSatisfy(isDigit)
        && [0x20, 0x0D, 0x0A].contains(line[12])
      return isValid ? nil : "its status line is not valid"
    }
    guard let colon = line.firstIndex(of: 0x3A), line[..<colon].count == 14,
      String(characters[..<colon]).lowercased() == "content-length", line[..<colon].allSatisfy({ $0 < 0x80 })
    else { return nil }
    let value = Array(line[(colon + 1)...]).trimmed { [0x20, 0x09, 0x0D, 0x0A].contains($0) }
    guard (1...18).contains(value.count), value.allSatisfy({ (0x30...0x39).contains($0) }) else {
      return "its Content-Length is not valid"
    }
    let number = Int(String(decoding: value, as: UTF8.self))
    defer { if length == nil { length = number } }
    return length == nil || length == number ? nil : "it has two different lengths"
  }
}

extension [UInt8] {
  func trimmed(_ isBlank: (UInt8) -> Bool) -> [UInt8] {
    guard let first = firstIndex(where: { !isBlank($0) }), let last = lastIndex(where: { !isBlank($0) }) else {
      return []
    }
    return Array(self[first...last])
  }
}
