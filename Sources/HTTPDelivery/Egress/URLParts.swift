import CLibCurl

/// A URL taken apart by libcurl.
struct URLParts {
  let host: String
  let port: Int
  let hasCredentials: Bool
  let hasFragment: Bool

  init(_ string: String) throws(WebhookURLError) {
    CurlLibrary.start()
    guard let url = curl_url() else { throw WebhookURLError(.syntax, "the URL could not be parsed: out of memory") }
    defer { curl_url_cleanup(url) }
    let code = string.withCString { curl_url_set(url, CURLUPART_URL, $0, UInt32(CURLU_NON_SUPPORT_SCHEME)) }
    guard code == CURLUE_OK else { throw Self.error(code) }

    func part(_ part: CURLUPart, _ flags: Int32 = 0) -> String? {
      var text: UnsafeMutablePointer<CChar>?
      guard curl_url_get(url, part, &text, UInt32(flags)) == CURLUE_OK, let text else { return nil }
      defer { curl_free(text) }
      return String(cString: text)
    }
    guard part(CURLUPART_ZONEID) == nil else {
      throw WebhookURLError(.host, "the URL's host names a network interface (%…), which is not accepted")
    }
    let rawHost = (part(CURLUPART_HOST) ?? "").lowercased()
    host = try Self.checkedHost(rawHost)
    port = part(CURLUPART_PORT, CURLU_DEFAULT_PORT).flatMap { Int($0) } ?? 0
    hasCredentials = part(CURLUPART_USER) != nil || part(CURLUPART_PASSWORD) != nil || part(CURLUPART_OPTIONS) != nil
    hasFragment = part(CURLUPART_FRAGMENT) != nil
  }

  private static func checkedHost(_ host: String) throws(WebhookURLError) -> String {
    if host.hasPrefix("["), host.hasSuffix("]") {
      let inner = String(host.dropFirst().dropLast())
      guard IPAddress(parsing: inner) != nil else {
        throw WebhookURLError(.host, "the URL's host is not a valid IPv6 address")
      }
      return inner
    }
    guard !host.isEmpty else { throw WebhookURLError(.host, "the URL has no host") }
    // libcurl has undone percent-encoding and written numeric IPv4 forms out by now. What is left must look like a
    // name, so that no resolver is asked about anything stranger.
    let isName = host.utf8.allSatisfy { HostName.isByte($0) || $0 == 0x2E }
    guard isName, host.utf8.count <= 254, !host.hasPrefix("."), !host.contains("..") else {
      throw WebhookURLError(.host, "the URL's host is not a valid host name")
    }
    let isAddress = IPAddress(parsing: host.hasSuffix(".") ? String(host.dropLast()) : host) != nil
    guard !HostName.looksNumeric(host) || isAddress else {
      throw WebhookURLError(.host, "the URL's host is not a valid IPv4 address")
    }
    return host
  }

  private static func error(_ code: CURLUcode) -> WebhookURLError {
    switch code {
    case CURLUE_BAD_PORT_NUMBER: WebhookURLError(.port, "the port must be a number from 1 to 65535")
    case CURLUE_NO_HOST, CURLUE_BAD_HOSTNAME: WebhookURLError(.host, "the URL has no valid host name")
    case CURLUE_BAD_IPV6: WebhookURLError(.host, "the URL's host is not a valid IPv6 address")
    case CURLUE_BAD_SCHEME, CURLUE_UNSUPPORTED_SCHEME: WebhookURLError(.scheme, "the URL must begin with https://")
    case CURLUE_BAD_SLASHES: WebhookURLError(.syntax, "the URL must have exactly two slashes after its scheme")
    case CURLUE_BAD_LOGIN, CURLUE_BAD_USER, CURLUE_BAD_PASSWORD, CURLUE_USER_NOT_ALLOWED:
      WebhookURLError(.credentials, "the URL contains a user name or password: remove it")
    default: WebhookURLError(.syntax, "this is not a complete URL; it should look like https://example.com/path")
    }
  }
}
