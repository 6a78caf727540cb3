import Testing

@testable import HTTPDelivery

@Suite struct WebhookURLTests {
  private func error(_ url: String, _ policy: EgressPolicy = EgressPolicy()) -> WebhookURLError? {
    do {
      _ = try WebhookURL(validating: url, policy: policy)
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: [
    ("https://example.com", "https://example.com:443"),
    ("https://example.com/a/b?c=d&e=%20", "https://example.com:443"),
    ("HTTPS://EXAMPLE.com:8443/", "https://example.com:8443"), ("https://8.8.8.8/", "https://8.8.8.8:443"),
    ("https://[2606:4700::1]:444/", "https://2606:4700::1:444"),
    ("https://xn--mnchen-3ya.de/", "https://xn--mnchen-3ya.de:443"),
    ("https://a_b.example.com/?q=[x]|y", "https://a_b.example.com:443"),
    ("https://example.com./", "https://example.com.:443"),
    ("https://134744072/", "https://8.8.8.8:443"),
  ])
  func goodURLIsAcceptedAndTakenApart(url: String, origin: String) throws {
    let valid = try WebhookURL(validating: url, policy: EgressPolicy())
    #expect(valid.origin == origin)
    #expect(valid.string == url)
  }

  @Test(arguments: [
    ("", WebhookURLError.Reason.syntax), ("example.com", .scheme), ("//example.com/", .scheme), ("/path", .scheme),
    ("https:/example.com", .scheme), ("https:example.com", .scheme), ("https:///path", .host), ("https://", .host),
    ("https://?q", .host),
    ("ftp://example.com/", .scheme), ("file:///etc/passwd", .scheme), ("gopher://example.com/", .scheme),
    ("javascript:alert(1)", .scheme), ("http://example.com/", .scheme),
    ("https://user:secret@example.com/", .credentials), ("https://user@example.com/", .credentials),
    ("https://@example.com/", .credentials), ("https://example.com/#top", .fragment),
    ("https://example.com/#", .fragment),
    ("https://example.com:0/", .port), ("https://example.com:65536/", .port), ("https://example.com:x/", .port),
    ("https://example.com:-1/", .port), ("https://example.com/a b", .syntax), ("https://example.com/a\tb", .syntax),
    ("https://example.com/\r\nX: y", .syntax), ("https://example.com/\u{0}", .syntax),
    ("https://example.com\\@evil.test/", .syntax),
    ("https://exämple.com/", .syntax), ("https://example.com/ä", .syntax), (" https://example.com/", .syntax),
    ("https://exa%00mple.com/", .host), ("https://exa%2fmple.com/", .host), ("https://1%32%37.1/", .host),
    ("https://a..b/", .host), ("https://.a/", .host),
    ("https://[::1%25eth0]/", .host), ("https://[fe80::1%eth0]/", .host), ("https://[::1/", .host),
    ("https://[nope]/", .host),
    ("https://1.2.3.4.5/", .host), ("https://256.1.1.1/", .host), ("https://0x1ffffffff/", .host),
    ("https://exa(mple.com/", .host),
  ])
  func badURLIsRefusedForTheRightReason(url: String, reason: WebhookURLError.Reason) {
    #expect(error(url)?.reason == reason, "\(error(url)?.message ?? "accepted")")
  }

  @Test(arguments: [
    "127.0.0.1", "10.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "0", "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fd00::1]",
    "169.254.169.254",
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.localhost.", "127.0.0.1.", "%31%32%37.0.0.1",
  ])
  func addressThatIsNotPublicIsRefusedInWhateverForm(host: String) {
    #expect(error("https://\(host)/")?.reason == .egressDenied, "\(error("https://\(host)/")?.message ?? "accepted")")
    #expect(error("https://\(host):8443/x?y")?.reason == .egressDenied)
  }

  @Test func policyDecides() {
    let policy = EgressPolicy(allowHTTP: true, allowedNetworks: [cidr("127.0.0.0/8")])
    #expect(error("http://127.0.0.1:8080/", policy) == nil)
    #expect(error("http://localhost:8080/", policy) == nil)
    #expect(error("http://10.0.0.1/", policy)?.reason == .egressDenied)
    #expect(error("http://[::1]/", policy)?.reason == .egressDenied)
  }

  @Test func lengthIsLimited() {
    let base = "https://example.com/"
    let longest = base + String(repeating: "a", count: 2048 - base.utf8.count)
    #expect(error(longest) == nil)
    #expect(error(longest + "a")?.reason == .length)
  }

  @Test func errorsNeverRepeatTheURL() {
    for url in ["https://user:hunter2@example.com/", "https://hunter2 .com", "https://hunter2:99999/", "hunter2://x/"] {
      #expect(error(url)?.message.contains("hunter2") == false)
    }
  }

  @Test func namesThatOnlyLookLikeLocalhostAreAccepted() {
    for host in ["localhost.example.com", "notlocalhost", "localhosts.test"] {
      #expect(error("https://\(host)/") == nil)
    }
  }
}
