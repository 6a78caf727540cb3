import CLibCurl
import Glibc
import HTTPDelivery

extension FuzzTarget {
  /// What is accepted names the same host for us, for libcurl, which dials it, and for somebody who reads the URL; and no
  /// private address in any form that the C library would understand.
  static let url = FuzzTarget(name: "url") { random in
    let policy = EgressPolicy(allowHTTP: random.oneIn(2))
    let text = random.mutatedText(random.pick(urls), urlWords)
    guard let url = try? WebhookURL(validating: text, policy: policy) else { return false }
    try require(
      libcurlHost(text) == url.host,
      "libcurl's host is \(libcurlHost(text) ?? "none"), ours \(url.host)",
      text
    )
    let rest = text.utf8.drop { $0 != UInt8(ascii: ":") }.dropFirst(3)
    let authority = String(decoding: rest.prefix { !"/?".utf8.contains($0) }, as: UTF8.self)
    try require(!authority.contains("@"), "a user name passed", text)
    let (host, port) = split(authority)
    try require(isSame(host, url.host), "read by hand, the host is \(host), ours \(url.host)", text)
    try require(port.isEmpty || Int(port) == url.port, "read by hand, the port is \(port), ours \(url.port)", text)
    try require(text.utf8.allSatisfy { (0x21...0x7E).contains($0) }, "not printable ASCII", text)
    let bare = url.host.hasSuffix(".") ? String(url.host.dropLast()) : url.host
    if let address = IPAddress(parsing: bare) ?? address(bare) {
      try require(policy.refusal(of: address) == nil, "a private address passed", text)
    }
    try require(bare != "localhost" && !bare.hasSuffix(".localhost"), "localhost passed", text)
    return true
  }

  /// The same networks as a reading by hand, and in them the addresses whose bits say so, one by one.
  static let cidr = FuzzTarget(name: "cidr") { random in
    let text = random.mutatedText(
      random.oneIn(2) ? randomNetwork(&random) : random.pick(networks),
      ["/", "0", "1", "::", ".", "ffff", "8"]
    )
    let network = try? CIDR(parsing: text)
    let reference = ReferenceNetwork(text)
    try require((network == nil) == (reference == nil), "accepted by one of two", text)
    guard let network, let reference else { return false }
    try require(try CIDR(parsing: network.description) == network, "does not read back", text)
    for _ in 0..<4 {
      // Near the network, or anywhere.
      var bytes = random.oneIn(4) ? random.bytes(reference.bytes.count...reference.bytes.count) : reference.bytes
      bytes[random.below(bytes.count)] ^= 1 << UInt8(random.below(8))
      let bits = bytes.reduce(UInt128(0)) { $0 << 8 | UInt128($1) }
      let address = bytes.count == 4 ? IPAddress(v4: UInt32(bits)) : IPAddress(v6: bits)
      try require(network.contains(address) == reference.contains(bytes), "\(address) is in one of two", text)
    }
    return true
  }

  /// The same hosts as a comparison label by label.
  static let hostPattern = FuzzTarget(name: "host-pattern") { random in
    let text = random.mutatedText(
      random.pick(["example.com", "*.example.com", "a.b.c.d", "*.x", "EXAMPLE.com.", "xn--bcher-kva.example"]),
      hostWords
    )
    guard let pattern = try? HostPattern(parsing: text) else { return false }
    try require(try HostPattern(parsing: pattern.description) == pattern, "does not read back", text)
    let name = pattern.description.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    for _ in 0..<4 {
      var host = String(
        decoding: random.mutated(pattern.description.replacing("*", with: "w"), hostWords).map { $0 & 0x7F },
        as: UTF8.self
      )
      let matches = pattern.matches(host)
      host = host.lowercased()
      if host.hasSuffix(".") { host.removeLast() }
      let labels = host.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
      let below = Array(labels.dropLast(name.count - 1))
      let reference =
        name.first == "*"
        ? labels.count >= name.count && Array(labels.suffix(name.count - 1)) == Array(name.dropFirst())
          && below.joined(separator: ".") != ""
        : labels == name
      try require(matches == reference, "\(String(reflecting: host)) matches one of two", text)
    }
    return true
  }

  /// Names the host that stands there, and never repeats a password.
  static let proxy = FuzzTarget(name: "proxy") { random in
    let text = random.mutatedText(
      random.pick(["http://proxy.test:3128", "http://user:hunter2secret@proxy.test:3128/", "http://[::1]:8080"]),
      urlWords + ["hunter2secret", "user:hunter2secret@"]
    )
    do {
      let proxy = try HTTPProxy(parsing: text)
      try require(
        !"\(proxy)".contains("hunter2secret") || proxy.host.contains("hunter2secret"),
        "shows its password",
        text
      )
      let authority = String(text.dropFirst(7).prefix { !"/?#".contains($0) })
      let (host, port) = split(
        String(authority[(authority.lastIndex(of: "@").map(authority.index(after:)) ?? authority.startIndex)...])
      )
      try require(isSame(host, bare(proxy.host)), "read by hand, the host is \(host), ours \(proxy.host)", text)
      try require(Int(port) == proxy.port, "read by hand, the port is \(port), ours \(proxy.port)", text)
      return true
    } catch let error as HTTPProxyError {
      try require(!error.message.contains("hunter2secret"), "repeats the password", text)
      return false
    }
  }

  private static let urls = [
    "https://example.com/hook", "https://example.com:8443/a/b?c=d&e=%20", "http://EXAMPLE.com./",
    "https://xn--bcher-kva.example",
    "https://[2001:db8::1]:443/x", "https://[::ffff:10.0.0.1]/", "http://93.184.216.34/", "http://0x7f.1/",
    "http://2130706433/",
    "https://example.com?x", "https://a_b-c.example:1/", "https://user:pw@example.com/", "http://127.1:80/",
    "https://%65xample.com/",
    "https://hooks.slack.com/services/T000/B000/XXXX", "http://169.254.169.254/latest/meta-data/",
    "https://[fe80::1%25eth0]/",
  ]
  private static let urlWords = [
    "http://", "https://", "@", "localhost", "127.0.0.1", "[::1]", "0x7f000001", "0177.0.0.1", "10.0.0.1", "%00", "%2e",
    "%2F", "%40", "%5B",
    "#", "?", "\\", ":", ":80", ":65536", ":0", "..", ".", "//", "169.254.169.254", "[::ffff:127.0.0.1]",
    "64:ff9b::7f00:1", "。", "１",
  ]
  private static let hostWords = [".", "..", "*", "*.", "example", ".com", "-", "_", "xn--", "1", "0x1", "com."]
  private static let networks = [
    "10.0.0.0/8", "192.168.1.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "fc00::/7", "1.2.3.4", "::1",
    "::ffff:10.0.0.0/104",
  ]

  private static func randomNetwork(_ random: inout FuzzRandom) -> String {
    let length = random.below(33)
    let bits = UInt32(truncatingIfNeeded: random.next()) & (length == 0 ? 0 : UInt32.max << UInt32(32 - length))
    return "\(IPAddress(v4: bits))/\(length)"
  }

  /// Percent-decoded, lower-case host, and port, of `host:port`.
  private static func split(_ authority: String) -> (host: String, port: String) {
    var host = authority[...]
    var port = ""[...]
    if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
      (host, port) = (authority[..<colon], authority[authority.index(after: colon)...])
    }
    var decoded: [UInt8] = []
    var bytes = Array(bare(String(host)).utf8)[...]
    while let byte = bytes.popFirst() {
      if byte == 0x25, bytes.count >= 2, let value = UInt8(String(decoding: bytes.prefix(2), as: UTF8.self), radix: 16)
      {
        decoded.append(value)
        bytes = bytes.dropFirst(2)
      } else {
        decoded.append(byte)
      }
    }
    return (String(decoding: decoded, as: UTF8.self).lowercased(), String(port))
  }

  private static func bare(_ host: String) -> String {
    host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
  }

  /// Whether two texts name one host: the same name, or the same address in whatever form.
  private static func isSame(_ host: String, _ other: String) -> Bool {
    func form(_ host: String) -> String {
      (IPAddress(parsing: host) ?? address(host)).map { "\($0)" } ?? host.lowercased()
    }
    return form(host) == form(other)
  }

  /// What the C library makes of a host as an IPv4 address, in any of the old forms.
  private static func address(_ host: String) -> IPAddress? {
    var address = in_addr()
    guard !host.utf8.contains(0), inet_aton(host, &address) == 1 else { return nil }
    return IPAddress(v4: UInt32(bigEndian: address.s_addr))
  }

  private static func libcurlHost(_ text: String) -> String? {
    guard let url = curl_url() else { return nil }
    defer { curl_url_cleanup(url) }
    guard curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK else { return nil }
    var host: UnsafeMutablePointer<CChar>?
    guard curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK, let host else { return nil }
    defer { curl_free(host) }
    return bare(String(cString: host)).lowercased()
  }
}

/// A network read and compared with nothing but `inet_pton` and single bits.
private struct ReferenceNetwork {
  let bytes: [UInt8]
  let length: Int

  init?(_ text: String) {
    guard !text.utf8.contains(0) else { return nil }
    let slash = text.firstIndex(of: "/")
    let base = String(text[..<(slash ?? text.endIndex)])
    var four = [UInt8](repeating: 0, count: 4)
    var sixteen = [UInt8](repeating: 0, count: 16)
    if inet_pton(AF_INET, base, &four) == 1 {
      bytes = four
    } else if inet_pton(AF_INET6, base, &sixteen) == 1 {
      bytes = sixteen
    } else {
      return nil
    }
    if let slash {
      let digits = String(text[text.index(after: slash)...])
      guard let number = (0...(bytes.count * 8)).first(where: { String($0).utf8.elementsEqual(digits.utf8) }) else {
        return nil
      }
      length = number
    } else {
      length = bytes.count * 8
    }
    for bit in length..<(bytes.count * 8) where Self.bit(bit, bytes) { return nil }
    // IPv4 in IPv6 form is refused, and told so.
    if bytes.count == 16, length >= 96, bytes[..<10].allSatisfy({ $0 == 0 }), bytes[10] == 0xFF, bytes[11] == 0xFF {
      return nil
    }
  }

  func contains(_ other: [UInt8]) -> Bool {
    other.count == bytes.count && (0..<length).allSatisfy { Self.bit($0, bytes) == Self.bit($0, other) }
  }

  private static func bit(_ index: Int, _ bytes: [UInt8]) -> Bool { bytes[index / 8] & (0x80 >> UInt8(index % 8)) != 0 }
}
