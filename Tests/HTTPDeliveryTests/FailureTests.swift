import Synchronization
import Testing

@testable import HTTPDelivery

/// Every way an exchange can fail, each with a real one.
@Suite struct FailureTests {
  private func failure(
    _ timeout: Duration = .seconds(30),
    configuration: HTTPEngineConfiguration = .loopback,
    from script: @escaping @Sendable (Peer) -> Void
  ) async throws -> HTTPFailure? {
    let server = ScriptedServer(script: script)
    return try await withClient(configuration) { await $0.post(server.url, timeout: timeout) }.failure
  }

  @Test func unknownHostNameIsADNSFailure() async throws {
    // RFC 6761: never resolves.
    let completion = try await withClient { await $0.post("http://martlet.invalid/hook") }
    #expect(completion.failure?.kind == .dns)
  }

  @Test func closedPortIsAConnectFailure() async throws {
    let port = ScriptedServer.closedPort()
    let completion = try await withClient { await $0.post("http://127.0.0.1:\(port)/") }
    #expect(completion.failure == HTTPFailure(.connect, "no connection could be made: Connection refused"))
  }

  @Test func silenceIsATimeout() async throws {
    let failure = try await failure(.milliseconds(100)) { $0.hang() }
    #expect(failure?.kind == .timeout)
  }

  @Test func deadlineCoversTheBody() async throws {
    // On a busy machine the deadline may come before the header does; then it gets longer.
    var timeout = Duration.milliseconds(200)
    var failure: HTTPFailure?
    repeat {
      failure = try await self.failure(timeout) { peer in
        guard peer.readRequest() != nil else { return }
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        peer.hang()
      }
      timeout *= 4
    } while failure?.message.hasSuffix("waiting for an answer") == true && timeout < .seconds(60)
    #expect(failure == HTTPFailure(.timeout, "the deadline passed while reading the answer"))
  }

  @Test func resetBeforeTheAnswer() async throws {
    let failure = try await failure { peer in
      guard peer.readRequest() != nil else { return }
      peer.reset()
    }
    #expect(failure?.kind == .reset)
  }

  @Test func closeBeforeTheAnswer() async throws {
    let failure = try await failure { _ = $0.readRequest() }
    #expect(failure?.kind == .reset)
  }

  @Test(arguments: [
    "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nX: y\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n",
  ])
  func closeWithinTheHeaderIsNoResponse(response: String) async throws {
    let failure = try await failure { peer in
      _ = peer.readRequest()
      peer.send(response)
    }
    #expect(failure?.kind == .reset)
  }

  @Test(arguments: [
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
  ])
  func bodyShorterThanPromisedIsNoResponseWhateverTheStatus(response: String) async throws {
    let failure = try await failure { peer in
      _ = peer.readRequest()
      peer.send(response)
    }
    #expect(failure?.kind == .reset)
  }

  @Test(arguments: [
    "SMTP ready\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "hello", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 abc\r\n\r\n", "\u{0}\u{1}\u{2}\u{3}\r\n\r\n", "<html>hello</html>\r\n",
  ])
  func whatIsNotHTTPIsMalformed(response: String) async throws {
    let failure = try await failure { peer in
      _ = peer.readRequest()
      peer.send(response)
    }
    #expect(failure?.kind == .malformedResponse)
  }

  @Test(arguments: ["HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 000 Nil\r\nContent-Length: 0\r\n\r\n"])
  func impossibleStatusIsMalformed(response: String) async throws {
    let failure = try await failure(.milliseconds(500)) { peer in
      _ = peer.readRequest()
      peer.send(response)
    }
    #expect(failure?.kind == .malformedResponse)
  }

  @Test(arguments: ["Bad header", "A: b\r\nInjected: yes", "A: b\u{0}", ": nameless", ""])
  func headerLineThatCannotBeSentIsAnInvalidRequest(line: String) async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let completion = try await withClient { await $0.post(server.url, headers: [line]) }
    #expect(completion.failure?.kind == .invalidRequest)
    #expect(server.acceptedCount == 0)
  }

  @Test(arguments: ["", "nonsense", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "file:///etc/passwd", "http://"])
  func urlThatCannotBeSentIsAnInvalidRequest(url: String) async throws {
    let completion = try await withClient { await $0.post(url) }
    #expect(completion.failure?.kind == .invalidRequest)
    #expect(completion.failure?.message.contains("u:p") == false)
  }

  @Test func plainHTTPIsRefusedUnlessAllowed() async throws {
    var configuration = HTTPEngineConfiguration.loopback
    configuration.egress.allowHTTP = false
    let completion = try await withClient(configuration) { await $0.post("http://127.0.0.1/") }
    #expect(completion.failure?.kind == .invalidRequest)
  }

  @Test func failureLeavesTheEngineUsable() async throws {
    let broken = ScriptedServer { peer in
      _ = peer.readRequest()
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
    }
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    try await withClient { client in
      for _ in 0..<20 {
        #expect(await client.post(broken.url).failure?.kind == .reset)
        #expect(await client.post(server.url).outcome == .response(status: 204))
      }
    }
    #expect(server.acceptedCount == 1)
  }
}
