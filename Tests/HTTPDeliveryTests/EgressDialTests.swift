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
          .egressDenied, "127.0.0.1 is a loopback address (127.0.0.0/8); allow it with --allow-network 127.0.0.0/8"))
    #expect(server.acceptedCount == 0)
  }

  /// A name passes the door when either family may be dialled; then each address is checked as it is dialled.
  @Test func hostNameThatResolvesToARefusedAddressIsRefusedAtConnect() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    // Allows one address of the two families that "localhost" may mean, and not the one the server has.
    let transfer = try await withClient(configuration(["::1"])) { await $0.post("http://localhost:\(server.port)/") }
    // Whether the name has an IPv6 address at all depends on the machine.
    #expect(transfer.failure?.kind == .egressDenied || transfer.failure?.kind == .connect)
    #expect(server.acceptedCount == 0)
  }

  @Test func refusedAddressIsNeverDialledAndAllowedOneIs() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let completion = try await withClient(configuration(["127.0.0.0/8"])) {
      await $0.post("http://localhost:\(server.port)/")
    }
    #expect(completion.outcome == .response(status: 204))
    #expect(server.acceptedCount == 1)
  }

  /// Straight at the dialler: the door, which would refuse the name first, is left open.
  @Test func diallerRefusesWhatTheDoorDidNotSee() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let failure = try await withClient(configuration(["::1"])) { client in
      await client.post("http://localhost.:\(server.port)/")
    }.failure
    #expect(failure?.kind == .egressDenied || failure?.kind == .connect || failure?.kind == .dns)
    #expect(server.acceptedCount == 0)
  }

  @Test(arguments: ["http://2130706433", "http://0x7f.1", "http://127.1", "http://0177.0.0.1", "http://[::ffff:7f00:1]"])
  func disguisedLoopbackIsRefused(base: String) async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let failure = try await withClient(configuration([])) { await $0.post("\(base):\(server.port)/") }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(server.acceptedCount == 0)
  }
}
