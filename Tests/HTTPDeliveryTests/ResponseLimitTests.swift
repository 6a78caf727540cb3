import Synchronization
import Testing

@testable import HTTPDelivery

/// Servers that send more than anybody wants.
@Suite struct ResponseLimitTests {
  private static let flood = [UInt8](repeating: 0x61, count: 65_536)

  @Test(arguments: [200, 500])
  func endlessBodyIsCutOffAndItsStatusCounts(status: Int) async throws {
    let server = ScriptedServer { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 \(status) Flood\r\n\r\n")
      while peer.send(Self.flood) {}
    }
    let completion = try await withClient { await $0.post(server.url) }
    #expect(completion.outcome == .response(status: status))
    #expect(completion.excerpt.count == (status == 200 ? 0 : 1024))
  }

  @Test func bodyOfExactlyTheLimitKeepsTheConnection() async throws {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + String(repeating: "a", count: 65_536)
    let server = ScriptedServer.answering(response)
    try await withClient { client in
      for _ in 0..<3 { #expect(await client.post(server.url).outcome == .response(status: 200)) }
    }
    #expect(server.acceptedCount == 1)
  }

  @Test func bodyBeyondTheLimitCostsTheConnection() async throws {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n" + String(repeating: "a", count: 65_537)
    let server = ScriptedServer.answering(response)
    try await withClient { client in
      for _ in 0..<3 { #expect(await client.post(server.url).outcome == .response(status: 200)) }
    }
    #expect(server.acceptedCount == 3)
  }

  @Test func compressedBombIsNeverUnpacked() async throws {
    // A gzip header and garbage: decoding it would fail, counting it does not.
    let server = ScriptedServer.answering(
      "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\u{1F}\u{0B}\u{08}\u{00}"
    )
    let completion = try await withClient { await $0.post(server.url) }
    #expect(completion.outcome == .response(status: 200))
  }

  /// Many lines, many interim responses, one line.
  @Test(arguments: [
    "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    "X: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  ])
  func endlessHeaderIsTooLargeHoweverHighTheLimit(piece: String) async throws {
    try await expectTooLarge(piece, limitBytes: 64 * 1024)
    try await expectTooLarge(piece, limitBytes: .max)
  }

  private func expectTooLarge(_ piece: String, limitBytes: Int) async throws {
    let server = ScriptedServer { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 103 Early Hints\r\n" + (piece.hasSuffix("\n") ? "" : "X: "))
      let pieces = Array(String(repeating: piece, count: 100).utf8)
      while peer.send(pieces) {}
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.headerLimitBytes = limitBytes
    let completion = try await withClient(configuration) { await $0.post(server.url) }
    #expect(completion.failure?.kind == .responseTooLarge)
  }

  @Test func endlessTrailerIsTooLarge() async throws {
    let server = ScriptedServer { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\n")
      let lines = Array(String(repeating: "X: \(String(repeating: "y", count: 60))\r\n", count: 100).utf8)
      while peer.send(lines) {}
    }
    let completion = try await withClient { await $0.post(server.url) }
    #expect(completion.failure?.kind == .responseTooLarge)
  }

  @Test func slowInterimResponsesEndAtTheDeadline() async throws {
    let server = ScriptedServer { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 100 Continue\r\n\r\n")
      peer.hang()
    }
    let completion = try await withClient { await $0.post(server.url, timeout: .milliseconds(200)) }
    #expect(completion.failure?.kind == .timeout)
  }

  @Test func bodyAfter204DoesNotSpoilTheNextAnswer() async throws {
    let served = Mutex(0)
    let server = ScriptedServer { peer in
      while peer.readRequest() != nil {
        served.withLock { $0 += 1 }
        peer.send("HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\nHTTP/1.1 500 Not\r\nContent-Length: 0\r\n\r\n")
      }
    }
    try await withClient { client in
      for _ in 0..<5 { #expect(await client.post(server.url).outcome == .response(status: 204)) }
    }
  }

  @Test func bytesBeyondContentLengthDoNotBecomeTheNextAnswer() async throws {
    let server = ScriptedServer { peer in
      while peer.readRequest() != nil {
        peer.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
      }
    }
    try await withClient { client in
      for _ in 0..<5 { #expect(await client.post(server.url).outcome == .response(status: 500)) }
    }
  }
}
