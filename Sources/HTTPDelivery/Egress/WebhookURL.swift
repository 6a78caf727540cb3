import CLibCurl

/// A URL that deliveries may be sent to, as far as can be said without resolving its host.
///
/// Parsed by libcurl's own URL parser, so that what is checked at the door is what will be dialled: two parsers that
/// disagree about where a host ends are the classic way past such a check.
package struct WebhookURL: Sendable, Hashable, CustomStringConvertible {
  package static let lengthLimitBytes = 2048

  package let string: String
  package let isSecure: Bool
  /// In lower case, an IPv4 address in canonical form, an IPv6 address without brackets.
  package let host: String
  package let port: Int

  package init(validating string: String, policy: EgressPolicy) throws(WebhookURLError) {
    try Self.checkCharacters(string)
    isSecure = try Self.checkScheme(string, policy)
    let parts = try URLParts(string)
    guard !parts.hasCredentials else {
      throw WebhookURLError(
        .credentials,
        "the URL contains a user name or password: remove it, and send a header for the endpoint instead"
      )
    }
    guard !parts.hasFragment, !string.utf8.contains(0x23) else {
      throw WebhookURLError(.fragment, "the URL contains a fragment (#…), which is never sent: remove it")
    }
    guard (1...65535).contains(parts.port) else {
      throw WebhookURLError(.port, "the port must be a number from 1 to 65535")
    }
    self.string = string
    host = parts.host
    port = parts.port
    if let refusal = policy.refusal(ofHost: host) {
      throw WebhookURLError(.egressDenied, refusal)
    }
  }

  package var description: String { string }

  /// What connections are shared by: `https://host:port`.
  var origin: String { (isSecure ? "https://" : "http://") + host + ":" + String(port) }

  private static func checkCharacters(_ string: String) throws(WebhookURLError) {
    guard !string.isEmpty else { throw WebhookURLError(.syntax, "the URL is empty") }
    guard string.utf8.count <= lengthLimitBytes else {
      throw WebhookURLError(.length, "the URL is longer than \(lengthLimitBytes) bytes")
    }
    for byte in string.utf8 {
      switch byte {
      case 0...0x20, 0x7F:
        throw WebhookURLError(.syntax, "the URL contains a space, line break or control character: percent-encode it")
      case 0x5C:
        throw WebhookURLError(.syntax, "the URL contains a backslash: use / or percent-encode it as %5C")
      case 0x80...:
        throw WebhookURLError(
          .syntax,
          "the URL contains a character that is not ASCII: write the host name as punycode (xn--…) and percent-encode the rest"
        )
      default: break
      }
    }
  }

  /// libcurl forgives a missing scheme and one or three slashes; people are told instead.
  /// - Returns: whether the URL is an https one.
  private static func checkScheme(_ string: String, _ policy: EgressPolicy) throws(WebhookURLError) -> Bool {
    let beginning = string.prefix(9).lowercased()
    if beginning.hasPrefix("http://") {
      guard policy.allowHTTP else {
        throw WebhookURLError(.scheme, "the URL is not encrypted: use https, or allow plain http with --allow-http")
      }
    } else if !beginning.hasPrefix("https://") {
      throw WebhookURLError(.scheme, "the URL must begin with https://")
    }
    let isSecure = beginning.hasPrefix("https://")
    guard !string.dropFirst(isSecure ? 8 : 7).hasPrefix("/") else {
      throw WebhookURLError(.host, "the URL has no host: there must be exactly two slashes before it")
    }
    return isSecure
  }
}

package struct WebhookURLError: Error, Sendable, Equatable, CustomStringConvertible {
  package enum Reason: String, Sendable, CaseIterable {
    case syntax, length, scheme, host, credentials, fragment, port, egressDenied
  }

  package let reason: Reason
  /// What is wrong and what to do about it. Never contains the URL, which may hold a secret.
  package let message: String

  init(_ reason: Reason, _ message: String) {
    self.reason = reason
    self.message = message
  }

  package var description: String { message }
}
