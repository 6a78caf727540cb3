import Testing

@testable import HTTPDelivery

/// The policy at the place where it counts: the address about to be dialled.
@Suite struct EgressDialTests {
  private func configuration(_ networks: [String]) -> HTTPEngineConfiguration {
    HTTPEngineConfiguration(egress: EgressPolicy(allowHTTP: true, allowedNetworks: networks.map(cidr)))
  }

  @Test func literalAddressIsRefusedWithTheReason() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let failure = try await withClient(configuration([])) { await $0.post(server.url) }.failure
    #expect(
      failure
        == HTTPFailure(
          .egressDenied,
          "127.0.0.1 is a loopback address (127.0.0.0/8); allow it with --allow-network 127.0.0.0/8"
        )
    )
    #expect(server.acceptedCount == 0)
  }

  private func configuration(_ networks: [String], resolve: String) -> HTTPEngineConfiguration {
    var configuration = configuration(networks)
    configuration.resolve = [resolve]
    return configuration
  }

  @Test func hostNameThatResolvesToARefusedAddressIsRefusedAtConnect() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let configuration = configuration([], resolve: "public.test:\(server.port):127.0.0.1")
    let failure = try await withClient(configuration) { await $0.post("http://public.test:\(server.port)/") }.failure
    #expect(
      failure
        == HTTPFailure(
          .egressDenied,
          "127.0.0.1 is a loopback address (127.0.0.0/8); allow it with --allow-network 127.0.0.0/8"
        )
    )
    #expect(server.acceptedCount == 0)
  }

  @Test func localhostIsRefused() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let failure = try await withClient(configuration([])) { await $0.post("http://localhost:\(server.port)/") }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(server.acceptedCount == 0)
  }

  @Test(arguments: ["10.0.0.1,127.0.0.1", "127.0.0.1,10.0.0.1", "169.254.169.254,[::1],127.0.0.1"])
  func ofSeveralAddressesOnlyAllowedOnesAreDialled(addresses: String) async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let configuration = configuration(["127.0.0.0/8"], resolve: "mixed.test:\(server.port):\(addresses)")
    let completion = try await withClient(configuration) { await $0.post("http://mixed.test:\(server.port)/") }
    #expect(completion.outcome == .response(status: 204))
    #expect(server.acceptedCount == 1)
  }

  @Test func allowedAddressThatDoesNotAnswerIsAConnectFailure() async throws {
    let port = ScriptedServer.closedPort()
    let configuration = configuration(["127.0.0.0/8"], resolve: "mixed.test:\(port):10.0.0.1,127.0.0.1")
    let failure = try await withClient(configuration) { await $0.post("http://mixed.test:\(port)/") }.failure
    #expect(failure?.kind == .connect)
  }

  @Test(arguments: [
    "http://2130706433", "http://0x7f.1", "http://127.1", "http://0177.0.0.1", "http://[::ffff:7f00:1]",
  ])
  func disguisedLoopbackIsRefused(base: String) async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let failure = try await withClient(configuration([])) { await $0.post("\(base):\(server.port)/") }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(server.acceptedCount == 0)
  }
}
