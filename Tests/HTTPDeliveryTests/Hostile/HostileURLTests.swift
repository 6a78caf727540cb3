import Testing

@testable import HTTPDelivery

/// Nothing a URL can say makes a connection to this host, unless the operator allows its addresses. What proves it is a
/// listener that nobody reaches, not the error.
@Suite struct HostileURLTests {
  /// Plain http, so that only the addresses stand between the URL and the canary.
  private static let policy = EgressPolicy(allowHTTP: true)

  @Test func corpusIsLarge() {
    #expect(HostileURLs.all.count >= 150)
    #expect(Set(HostileURLs.all).count == HostileURLs.all.count)
  }

  @Test(arguments: [nil, ["hooks.example.com"]] as [[String]?])
  func everyHostileURLIsRefusedBeforeAnythingIsDialled(hosts: [String]?) async throws {
    let canary = Canary()
    let policy = EgressPolicy(allowHTTP: true, allowedHosts: (hosts ?? []).map(host))
    try await withClient(HTTPEngineConfiguration(egress: policy)) { client in
      for template in HostileURLs.all {
        let url = template.replacing("$", with: "\(canary.port)")
        let failure = await client.post(url, timeout: .seconds(10)).failure
        #expect(failure?.kind == .egressDenied || failure?.kind == .invalidRequest, "\(template): \(failure as Any)")
        #expect(throws: WebhookURLError.self, "\(template)") { try WebhookURL(validating: url, policy: policy) }
      }
    }
    #expect(try await canary.connections() == 0)
  }

  /// The canary hears what gets through: the same forms, to a policy that lets them.
  @Test(arguments: [
    "127.0.0.1", "2130706433", "017700000001", "0x7f.1", "127.1", "0", "%31%32%37.0.0.1", "[::ffff:127.0.0.1]",
    "localhost",
  ])
  func canaryHearsWhatIsAllowed(host: String) async throws {
    let canary = Canary()
    var policy = Self.policy
    policy.allowedNetworks = ["127.0.0.0/8", "0.0.0.0", "::1"].map(cidr)
    let completion = try await withClient(HTTPEngineConfiguration(egress: policy)) {
      await $0.post("http://\(host):\(canary.port)/")
    }
    #expect(completion.outcome == .response(status: 299))
    #expect(try await canary.connections() == 1)
  }

  /// Addresses of private networks, under a name that says nothing of them.
  @Test(arguments: [
    "127.0.0.1", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]", "[::ffff:0:127.0.0.1]", "127.255.255.254", "127.0.0.1,[::1]", "[::1],0.0.0.0,127.0.0.1",
    "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1,127.0.0.1", "255.255.255.255,127.0.0.1", "[fe80::1],[::1]",
  ])
  func nameOfPrivateAddressesIsNotDialled(addresses: String) async throws {
    let canary = Canary()
    var configuration = HTTPEngineConfiguration(egress: Self.policy)
    configuration.resolve = ["innocent.test:\(canary.port):\(addresses)"]
    let failure = try await withClient(configuration) { await $0.post("http://innocent.test:\(canary.port)/") }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(try await canary.connections() == 0)
  }

  /// Names that systems like to resolve to themselves or to their neighbours. Whether they exist is the host's business.
  @Test(arguments: [
    "ip6-localhost", "ip6-loopback", "localhost.localdomain", "localhost6", "broadcasthost", "metadata",
    "xn--localhost-.test", "127.0.0.1.invalid", "0x7f.1.invalid", "127-0-0-1.invalid", "localhost.invalid",
    "127.0.0.-1", "127.0.0.1e0", "1e9", "http",
  ])
  func nameTheSystemMayKnowReachesNobody(name: String) async throws {
    let canary = Canary()
    let failure = try await withClient(HTTPEngineConfiguration(egress: Self.policy)) {
      await $0.post("http://\(name):\(canary.port)/", timeout: .seconds(10))
    }.failure
    #expect(failure != nil)
    #expect(try await canary.connections() == 0)
  }
}
