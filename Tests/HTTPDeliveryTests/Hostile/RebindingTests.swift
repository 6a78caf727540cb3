import Synchronization
import Testing

@testable import HTTPDelivery

/// Names that change their mind, or answer with good and bad addresses at once. 127.0.0.2 is the one address that may be
/// dialled; the canary sits on 127.0.0.1 and ::1, at the same port.
@Suite struct RebindingTests {
  private let policy = EgressPolicy(allowHTTP: true, allowedNetworks: [cidr("127.0.0.2")])

  private static let polite = "HTTP/1.1 204 No Content\r\n\r\n"

  @Test(arguments: ["127.0.0.1", "[::1]", "127.0.0.1,[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
  func nameThatMovesToAPrivateAddressIsNotFollowed(privateAddresses: String) async throws {
    let canary = Canary()
    let server = canary.neighbour { peer in
      // One answer per connection, so that every request resolves the name anew.
      if peer.readRequest() != nil { peer.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") }
    }
    let addresses = Mutex("127.0.0.2")
    var configuration = HTTPEngineConfiguration(egress: policy)
    configuration.resolveAnew = { ["rebind.test:\(canary.port):\(addresses.withLock { $0 })"] }
    let url = "http://rebind.test:\(canary.port)/"
    // The name is good when the endpoint is set up, and when it is used for the first time.
    _ = try WebhookURL(validating: url, policy: policy)
    try await withClient(configuration) { client in
      #expect(await client.post(url).outcome == .response(status: 204))
      addresses.withLock { $0 = privateAddresses }
      for _ in 0..<3 { #expect(await client.post(url).failure?.kind == .egressDenied) }
      addresses.withLock { $0 = "127.0.0.2" }
      #expect(await client.post(url).outcome == .response(status: 204))
    }
    #expect(server.acceptedCount == 2)
    #expect(try await canary.connections() == 0)
  }

  @Test(arguments: [
    "127.0.0.1,127.0.0.2", "127.0.0.2,127.0.0.1", "[::1],127.0.0.1,127.0.0.2", "10.0.0.1,[::1],127.0.0.2,127.0.0.1",
    "0.0.0.0,127.0.0.2",
  ])
  func ofSeveralAddressesThePrivateOnesAreNotDialled(addresses: String) async throws {
    let canary = Canary()
    let server = canary.neighbour { peer in
      while peer.readRequest() != nil { peer.send(Self.polite) }
    }
    var configuration = HTTPEngineConfiguration(egress: policy)
    configuration.resolve = ["mixed.test:\(canary.port):\(addresses)"]
    let completion = try await withClient(configuration) { await $0.post("http://mixed.test:\(canary.port)/") }
    #expect(completion.outcome == .response(status: 204))
    #expect(server.acceptedCount == 1)
    #expect(try await canary.connections() == 0)
  }

  /// The good address not answering must not make the bad one the next best.
  @Test(arguments: ["127.0.0.1,127.0.0.2", "127.0.0.2,127.0.0.1", "127.0.0.2,[::1]"])
  func goodAddressThatIsDownLeadsToNoOther(addresses: String) async throws {
    let canary = Canary()
    var configuration = HTTPEngineConfiguration(egress: policy)
    configuration.resolve = ["mixed.test:\(canary.port):\(addresses)"]
    let failure = try await withClient(configuration) { await $0.post("http://mixed.test:\(canary.port)/") }.failure
    #expect(failure?.kind == .connect)
    #expect(try await canary.connections() == 0)
  }
}

/// Answers that point somewhere else. Nothing in an answer makes the engine connect to anything.
@Suite struct RedirectTests {
  private static let targets = [
    "http://127.0.0.1:$/", "http://[::1]:$/", "http://2130706433:$/", "http://0x7f.1:$/", "http://localhost:$/",
    "//127.0.0.1:$/", "http://[::ffff:127.0.0.1]:$/", "http://u:p@127.0.0.1:$/", "HTTP://127.0.0.1:$/",
    "http:\\\\127.0.0.1:$/", "gopher://127.0.0.1:$/_x", "file:///etc/passwd", "http://127.0.0.1:$/\r\nX: y", "",
  ]

  @Test(arguments: [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
  func redirectIsAFailureAndLeadsNowhere(status: Int) async throws {
    let canary = Canary()
    let target = Mutex("")
    let server = canary.neighbour { peer in
      while peer.readRequest() != nil {
        peer.send("HTTP/1.1 \(status) Go\r\nLocation: \(target.withLock { $0 })\r\nContent-Length: 0\r\n\r\n")
      }
    }
    let policy = EgressPolicy(allowHTTP: true, allowedNetworks: [cidr("127.0.0.2")])
    try await withClient(HTTPEngineConfiguration(egress: policy)) { client in
      for template in Self.targets {
        target.withLock { $0 = template.replacing("$", with: "\(canary.port)") }
        #expect(await client.post("http://127.0.0.2:\(canary.port)/").outcome == .response(status: status))
      }
    }
    #expect(server.acceptedCount == 1)
    #expect(try await canary.connections() == 0)
  }

  @Test(arguments: [200, 302, 401, 407, 421, 426, 503])
  func noOtherHeaderLeadsAnywhereEither(status: Int) async throws {
    let canary = Canary()
    let elsewhere = "127.0.0.1:\(canary.port)"
    let headers = [
      "Refresh: 0; url=http://\(elsewhere)/", "Alt-Svc: http/1.1=\"\(elsewhere)\"; ma=60",
      "Content-Location: //\(elsewhere)/",
      "Link: <http://\(elsewhere)/>; rel=preload", "Location: http://\(elsewhere)/", "URI: <http://\(elsewhere)/>",
      "Set-Cookie: a=b; Domain=127.0.0.1", "Strict-Transport-Security: max-age=99999",
      "WWW-Authenticate: Negotiate", "WWW-Authenticate: NTLM", "Proxy-Authenticate: Basic realm=x", "Upgrade: h2c",
      "Use-Proxy: \(elsewhere)",
    ].map { $0 + "\r\n" }.joined()
    let received = Mutex<[ReceivedRequest]>([])
    let server = canary.neighbour { peer in
      while let request = peer.readRequest() {
        received.withLock { $0.append(request) }
        peer.send("HTTP/1.1 \(status) Go\r\n\(headers)Content-Length: 0\r\n\r\n")
      }
    }
    let policy = EgressPolicy(allowHTTP: true, allowedNetworks: [cidr("127.0.0.2")])
    try await withClient(HTTPEngineConfiguration(egress: policy)) { client in
      for _ in 0..<3 {
        #expect(await client.post("http://127.0.0.2:\(canary.port)/").outcome == .response(status: status))
      }
    }
    #expect(server.acceptedCount == 1)
    // Each was sent once, and nothing was learnt from the answers: no cookie, no credentials, no upgrade.
    let requests = received.withLock { $0 }
    #expect(requests.count == 3)
    #expect(Set(requests.map(\.lines)).count == 1)
    #expect(requests[0].header("cookie") == nil && requests[0].header("authorization") == nil)
    #expect(try await canary.connections() == 0)
  }
}
