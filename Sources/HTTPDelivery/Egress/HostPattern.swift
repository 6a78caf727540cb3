/// Host names an operator allows or denies: one name, or every name below a domain (`*.example.com`, which does not
/// hold `example.com` itself).
package struct HostPattern: Sendable, Hashable, CustomStringConvertible {
  /// In lower case, without a trailing dot.
  private let name: String
  private let coversSubdomains: Bool

  /// Any case and a trailing dot are fine; an internationalised name is written in its ASCII form (`xn--…`).
  package init(parsing text: String) throws(HostPatternError) {
    let shown = "\"" + PlainText.sanitized(text, limitBytes: 64) + "\""
    guard !text.contains("/"), !text.contains(":"), !text.contains("@") else {
      // An IPv6 address has colons as well.
      guard IPAddress(parsing: text) == nil else { throw Self.isAddress(shown) }
      throw HostPatternError("\(shown) is not a host name: give the name alone, without scheme, port or path")
    }
    guard text.utf8.allSatisfy({ $0 < 0x80 }) else {
      throw HostPatternError("\(shown) is not ASCII: write the host name as punycode (xn--…)")
    }
    coversSubdomains = text.hasPrefix("*.")
    name = Self.normalized(coversSubdomains ? String(text.dropFirst(2)) : text)
    guard !name.contains("*") else {
      throw HostPatternError(
        "\(shown) has a * elsewhere than in front: only a whole first label may be one, *.example.com"
      )
    }
    guard Self.isName(name) else { throw HostPatternError("\(shown) is not a host name") }
    guard !HostName.looksNumeric(name) else { throw Self.isAddress(shown) }
  }

  /// - Parameter host: a host name, never an address: those belong to networks.
  package func matches(_ host: String) -> Bool {
    let host = Self.normalized(host)
    return coversSubdomains ? host.hasSuffix("." + name) && host.utf8.count > name.utf8.count + 1 : host == name
  }

  package var description: String { (coversSubdomains ? "*." : "") + name }

  private static func normalized(_ host: String) -> String {
    (host.hasSuffix(".") ? String(host.dropLast()) : host).lowercased()
  }

  private static func isName(_ name: String) -> Bool {
    name.utf8.count <= 253
      && name.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
        (1...63).contains(label.utf8.count) && label.utf8.allSatisfy(HostName.isByte)
      }
  }

  private static func isAddress(_ shown: String) -> HostPatternError {
    HostPatternError("\(shown) is an address, not a host name: use --allow-network or --deny-network")
  }
}

package struct HostPatternError: Error, Sendable, Equatable, CustomStringConvertible {
  package let message: String
  init(_ message: String) { self.message = message }
  package var description: String { message }
}

/// What a host name may look like.
enum HostName {
  /// Letters in lower case, digits, hyphen, underscore.
  static func isByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x61...0x7A, 0x2D, 0x5F: true
    default: false
    }
  }

  /// A name whose last label is a number can only be an IPv4 address, or one gone wrong (WHATWG URL, section 3.5),
  /// which some resolvers would still turn into an address.
  static func looksNumeric(_ name: String) -> Bool {
    let lastLabel = name.split(separator: ".").last ?? ""
    return lastLabel.utf8.allSatisfy { (0x30...0x39).contains($0) } || lastLabel.hasPrefix("0x")
  }
}
