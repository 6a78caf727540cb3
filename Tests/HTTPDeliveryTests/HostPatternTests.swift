import Testing

@testable import HTTPDelivery

@Suite struct HostPatternTests {
  @Test(arguments: [
    ("hooks.example.com", "hooks.example.com", true), ("hooks.example.com", "HOOKS.Example.COM", true),
    ("Hooks.EXAMPLE.com.", "hooks.example.com", true), ("hooks.example.com", "hooks.example.com.", true),
    ("hooks.example.com", "a.hooks.example.com", false), ("hooks.example.com", "example.com", false),
    ("hooks.example.com", "xhooks.example.com", false), ("hooks.example.com", "hooks.example.com.evil.test", false),
    ("*.example.com", "a.example.com", true), ("*.example.com", "a.b.example.com", true),
    ("*.Example.com.", "A.EXAMPLE.COM.", true), ("*.example.com", "example.com", false),
    ("*.example.com", "example.com.", false), ("*.example.com", "evilexample.com", false),
    ("*.example.com", ".example.com", false), ("*.example.com", "a.example.com.evil.test", false),
    ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de", true), ("a_b.test", "a_b.test", true), ("localhost", "localhost", true),
  ])
  func patternMatchesExactlyItsNames(pattern: String, host: String, expected: Bool) throws {
    #expect(try HostPattern(parsing: pattern).matches(host) == expected)
  }

  @Test(arguments: [
    ("https://example.com", "without scheme, port or path"), ("example.com:443", "without scheme, port or path"),
    ("example.com/path", "without scheme, port or path"), ("u@example.com", "without scheme, port or path"),
    ("münchen.de", "punycode"), ("a.*.test", "a * elsewhere"), ("a*.test", "a * elsewhere"),
    ("*.*.test", "a * elsewhere"),
    ("*", "a * elsewhere"), ("", "is not a host name"), (".", "is not a host name"), ("*.", "is not a host name"),
    ("a..b", "is not a host name"), (".a", "is not a host name"), ("a b", "is not a host name"),
    ("a\u{0}b", "is not a host name"), ("a%2eb", "is not a host name"), ("example.com..", "is not a host name"),
    (String(repeating: "a", count: 64), "is not a host name"), ("[::1]", "without scheme, port or path"),
    ("10.0.0.1", "is an address"), ("10.1", "is an address"), ("2130706433", "is an address"),
    ("0x7f.1", "is an address"),
    ("a.0x7f", "is an address"), ("::1", "is an address"), ("*.0.0.1", "is an address"),
    ("127.0.0.1.", "is an address"),
  ])
  func whatIsNoPatternIsAnErrorThatSaysWhy(text: String, words: String) {
    let error = #expect(throws: HostPatternError.self) { try HostPattern(parsing: text) }
    #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
  }
}

@Suite struct HostRuleTests {
  private func policy(allow: [String] = [], deny: [String] = [], networks: [String] = []) -> EgressPolicy {
    EgressPolicy(
      allowHTTP: true,
      allowedNetworks: networks.map(cidr),
      allowedHosts: allow.map(host),
      deniedHosts: deny.map(host)
    )
  }

  private func refusal(_ url: String, _ policy: EgressPolicy) -> String? {
    do {
      _ = try WebhookURL(validating: url, policy: policy)
      return nil
    } catch {
      return error.reason == .egressDenied ? error.message : "\(error.reason)"
    }
  }

  @Test(arguments: [
    "https://hooks.example.com/", "https://HOOKS.example.COM:8443/x", "https://hooks.example.com./",
    "https://h%6foks.example.com/", "https://a.partner.test/", "https://a.b.partner.test/",
  ])
  func listedHostMayBeSentTo(url: String) {
    #expect(refusal(url, policy(allow: ["hooks.example.com", "*.partner.test"])) == nil)
  }

  @Test(arguments: [
    "https://example.com/", "https://xhooks.example.com/", "https://hooks.example.com.evil.test/",
    "https://partner.test/", "https://evil.test/?hooks.example.com", "https://evil.test/hooks.example.com",
    "https://localhost/",
  ])
  func unlistedHostIsRefusedByName(url: String) throws {
    let message = try #require(refusal(url, policy(allow: ["hooks.example.com", "*.partner.test"])))
    #expect(message.contains("is none of those that may be sent to; allow it with --allow-host "))
  }

  @Test(arguments: [
    "https://8.8.8.8/", "https://134744072/", "https://[2606:4700::1111]/", "https://[::ffff:808:808]/",
  ])
  func addressIsNoListedHostUnlessItsNetworkIsAllowed(url: String) throws {
    let message = try #require(refusal(url, policy(allow: ["hooks.example.com"])))
    #expect(message.contains("only the hosts of --allow-host may be sent to"))
    let network = String(try #require(message.split(separator: " ").last))
    #expect(refusal(url, policy(allow: ["hooks.example.com"], networks: [network])) == nil)
    #expect(refusal(url, policy()) == nil)
  }

  @Test func deniedHostIsRefusedEvenIfItIsListed() {
    let policy = policy(allow: ["*.example.com"], deny: ["bad.example.com", "*.worse.example.com"])
    #expect(refusal("https://good.example.com/", policy) == nil)
    #expect(
      refusal("https://BAD.example.com./", policy)
        == "the host bad.example.com is denied by --deny-host bad.example.com"
    )
    #expect(
      refusal("https://a.worse.example.com/", policy)
        == "the host a.worse.example.com is denied by --deny-host *.worse.example.com"
    )
    #expect(refusal("https://worse.example.com/", policy) == nil)
  }

  @Test func listedHostMustStillHaveAnAddressThatMayBeDialled() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    var configuration = HTTPEngineConfiguration(egress: policy(allow: ["hooks.test"]))
    configuration.resolve = ["hooks.test:\(server.port):127.0.0.1"]
    let failure = try await withClient(configuration) { await $0.post("http://hooks.test:\(server.port)/") }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(server.acceptedCount == 0)
  }

  /// The rule is not only asked when an endpoint is set up.
  @Test func requestToADeniedHostIsNotSent() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    var configuration = HTTPEngineConfiguration(egress: policy(deny: ["evil.test"], networks: ["127.0.0.0/8"]))
    configuration.resolve = ["evil.test:\(server.port):127.0.0.1", "good.test:\(server.port):127.0.0.1"]
    try await withClient(configuration) { client in
      for _ in 0..<2 {
        let failure = await client.post("http://evil.test:\(server.port)/").failure
        #expect(failure == HTTPFailure(.egressDenied, "the host evil.test is denied by --deny-host evil.test"))
      }
      #expect(server.acceptedCount == 0)
      #expect(await client.post("http://good.test:\(server.port)/").outcome == .response(status: 204))
    }
  }
}

@Suite struct DeniedNetworkTests {
  private func refusal(_ address: String, allow: [String], deny: [String]) throws -> String? {
    let policy = EgressPolicy(allowedNetworks: allow.map(cidr), deniedNetworks: deny.map(cidr))
    return try policy.refusal(of: #require(IPAddress(parsing: address)))?.description
  }

  @Test(arguments: [
    ("8.8.8.8", ["8.8.8.0/24"], "8.8.8.8 is denied by --deny-network 8.8.8.0/24"),
    ("10.1.2.3", ["10.1.0.0/16"], "10.1.2.3 is denied by --deny-network 10.1.0.0/16"),
    ("2606:4700::1", ["2606:4700::/32"], "2606:4700::1 is denied by --deny-network 2606:4700::/32"),
    ("64:ff9b::8.8.8.8", ["64:ff9b::/96"], "64:ff9b::808:808 is denied by --deny-network 64:ff9b::/96"),
    ("8.8.8.8", ["0.0.0.0/0"], "8.8.8.8 is denied by --deny-network 0.0.0.0/0"),
  ])
  func deniedNetworkBeatsEverything(address: String, deny: [String], message: String) throws {
    let everything = ["0.0.0.0/0", "::/0", address]
    #expect(try refusal(address, allow: everything, deny: deny) == message)
    #expect(try refusal(address, allow: [], deny: deny) == message)
  }

  @Test(arguments: [
    "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:808:808::f7f7:f7f6",
    "2001:0:909:909::f7f7:f7f7",
  ])
  func addressThatCarriesADeniedOneIsDenied(address: String) throws {
    let message = try refusal(address, allow: ["0.0.0.0/0", "::/0"], deny: ["8.8.8.8"])
    #expect(message?.hasSuffix("carries 8.8.8.8, which is denied by --deny-network 8.8.8.8/32") == true)
  }

  @Test func denyingAllOfIPv6LeavesIPv4Open() throws {
    #expect(try refusal("8.8.8.8", allow: [], deny: ["::/0"]) == nil)
    #expect(try refusal("::ffff:8.8.8.8", allow: [], deny: ["::/0"]) != nil)
  }

  @Test func deniedAddressIsNotDialled() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    var configuration = HTTPEngineConfiguration.loopback
    configuration.egress.deniedNetworks = [cidr("127.0.0.0/8")]
    configuration.resolve = ["name.test:\(server.port):127.0.0.1"]
    try await withClient(configuration) { client in
      for host in ["127.0.0.1", "name.test", "[::ffff:127.0.0.1]"] {
        let failure = await client.post("http://\(host):\(server.port)/").failure
        #expect(failure?.kind == .egressDenied)
        #expect(failure?.message.hasSuffix("is denied by --deny-network 127.0.0.0/8") == true)
      }
    }
    #expect(server.acceptedCount == 0)
  }

  @Test(arguments: [
    ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:0:0/96", "0.0.0.0/0"), ("::ffff:1.2.3.4", "1.2.3.4/32"),
  ])
  func networkInIPv4MappedFormIsAnErrorThatNamesTheIPv4One(text: String, network: String) {
    let error = #expect(throws: CIDRError.self) { try CIDR(parsing: text) }
    #expect(error?.message.hasSuffix("write it as \(network)") == true)
  }
}

func host(_ text: String) -> HostPattern {
  do { return try HostPattern(parsing: text) } catch { fatalError(error.message) }
}
