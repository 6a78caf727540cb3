import CLibCurl

/// A proxy that makes every connection for the engine: a tunnel (CONNECT) for https, plain forwarding for http.
///
/// With a proxy, the addresses of endpoints are resolved and dialled by *it*, so the check of addresses at connect time
/// moves there as well: configure it to refuse private networks. The proxy's own address is the operator's choice and is
/// trusted. What a URL itself says is still checked here: scheme, hosts allowed and denied, and addresses in it.
///
/// With plain forwarding, an error page made by the proxy cannot be told from one of the endpoint, except for 407.
package struct HTTPProxy: Sendable, Hashable {
  package let host: String
  package let port: Int
  let user: String?
  let password: String?

  /// Reads `http://[user:password@]host:port`; other bytes than letters and digits in the user name and the password are
  /// percent-encoded.
  package init(parsing text: String) throws(HTTPProxyError) {
    CurlLibrary.start()
    // libcurl forgives a third slash.
    guard text.lowercased().hasPrefix("http://"), !text.dropFirst(7).hasPrefix("/") else {
      throw HTTPProxyError("a proxy is given as http://host:port; no other kind of proxy is supported")
    }
    guard text.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != 0x5C }) else {
      throw HTTPProxyError(
        "the proxy's URL contains a space, a control character or one that is not ASCII: percent-encode it"
      )
    }
    guard let url = curl_url() else { throw HTTPProxyError("the proxy's URL could not be parsed: out of memory") }
    defer { curl_url_cleanup(url) }
    guard curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK else {
      throw HTTPProxyError("the proxy's URL is not of the form http://[user:password@]host:port")
    }
    func part(_ part: CURLUPart, _ flags: Int32 = 0) -> String? {
      var text: UnsafeMutablePointer<CChar>?
      guard curl_url_get(url, part, &text, UInt32(flags)) == CURLUE_OK, let text else { return nil }
      defer { curl_free(text) }
      return String(cString: text)
    }
    guard let host = part(CURLUPART_HOST), !host.isEmpty, let port = part(CURLUPART_PORT).flatMap({ Int($0) }), port > 0
    else {
      throw HTTPProxyError("the proxy's URL must name a host and a port: http://host:port")
    }
    guard part(CURLUPART_ZONEID) == nil else {
      throw HTTPProxyError("the proxy's address names a network interface (%…), which is not supported")
    }
    guard ["", "/"].contains(part(CURLUPART_PATH) ?? ""), part(CURLUPART_QUERY) == nil, part(CURLUPART_FRAGMENT) == nil
    else {
      throw HTTPProxyError("the proxy's URL must end after its port: http://host:port")
    }
    let hasUserInfo = text.contains("@")
    self.host = host
    self.port = port
    user = part(CURLUPART_USER, CURLU_URLDECODE)
    password = part(CURLUPART_PASSWORD, CURLU_URLDECODE)
    guard hasUserInfo == (user != nil && password != nil), user?.contains(":") != true else {
      throw HTTPProxyError("the proxy's user name and password must be of the form user:password@, percent-encoded")
    }
  }

  /// As libcurl takes it; the credentials go another way.
  var address: String { "http://\(host):\(port)" }
}

extension HTTPProxy: CustomStringConvertible, CustomReflectable {
  /// Without the user name and password.
  package var description: String { address }
  package var customMirror: Mirror { Mirror(self, children: ["address": address]) }
}

/// Why a proxy's URL cannot be used. Never contains the URL, which may hold a password.
package struct HTTPProxyError: Error, Sendable, Equatable, CustomStringConvertible {
  package let message: String
  init(_ message: String) { self.message = message }
  package var description: String { message }
}
