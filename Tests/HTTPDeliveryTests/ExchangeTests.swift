import Synchronization
import Testing

@testable import HTTPDelivery

@Suite struct ExchangeTests {
  @Test func requestIsSentExactlyAsGiven() async throws {
    let received = Mutex<ReceivedRequest?>(nil)
    let server = ScriptedServer { peer in
      while let request = peer.readRequest() {
        received.withLock { $0 = request }
        peer.send("HTTP/1.1 204 No Content\r\n\r\n")
      }
    }
    let body = (0..<2000).map { UInt8(truncatingIfNeeded: $0) }
    let completion = try await withClient { client in
      await client.post(
        server.url + "?a=b",
        body: body,
        headers: ["Content-Type: application/json", "webhook-id: 42", "X-Tab: a\tb"]
      )
    }
    #expect(completion.outcome == .response(status: 204))
    let request = try #require(received.withLock { $0 })
    #expect(request.lines[0] == "POST /hook?a=b HTTP/1.1")
    #expect(request.header("webhook-id") == "42")
    #expect(request.header("x-tab") == "a\tb")
    #expect(request.header("content-type") == "application/json")
    #expect(request.header("content-length") == "2000")
    #expect(request.header("user-agent") == "Martlet")
    #expect(request.header("accept-encoding") == nil)
    #expect(request.body == body)
  }

  @Test(arguments: [0, 1, 1024 * 1024 + 1, 3_000_000])
  func bodyOfAnySizeGoesOutWithoutExpectHeader(count: Int) async throws {
    let received = Mutex<ReceivedRequest?>(nil)
    let server = ScriptedServer { peer in
      while let request = peer.readRequest() {
        received.withLock { $0 = request }
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
      }
    }
    let body = [UInt8](repeating: 7, count: count)
    let completion = try await withClient { await $0.post(server.url, body: body, headers: []) }
    #expect(completion.outcome == .response(status: 200))
    let request = try #require(received.withLock { $0 })
    #expect(request.body == body)
    #expect(request.header("expect") == nil)
    #expect(request.header("content-type") == nil)
  }

  @Test func connectionIsKeptAliveAndHandlesAreReused() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    try await withClient { client in
      for _ in 0..<50 {
        let completion = await client.post(server.url)
        #expect(completion.outcome == .response(status: 200))
        #expect(completion.excerpt.isEmpty)
      }
    }
    #expect(server.acceptedCount == 1)
  }

  @Test func requestsReturnedByTheHandlerAreStarted() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    let statuses = Mutex<[UInt64]>([])
    let body = RequestBody(Array("{}".utf8))
    let engineBox = Mutex<HTTPEngine?>(nil)
    @Sendable func request(_ tag: UInt64) -> HTTPRequest {
      HTTPRequest(tag: tag, url: server.url, headers: [], body: body, timeout: .seconds(30))
    }
    let engine = HTTPEngine(configuration: .loopback) { completions in
      let next = completions.compactMap { $0.tag < 20 ? request($0.tag + 1) : nil }
      statuses.withLock { $0 += completions.map(\.tag) }
      if next.isEmpty { engineBox.withLock { $0 }?.shutdown() }
      return next
    }
    engineBox.withLock { $0 = engine }
    engine.submit([request(1)])
    await engine.run()
    engineBox.withLock { $0 = nil }
    #expect(statuses.withLock { $0 } == Array(1...20))
  }

  @Test func connectionClosedByServerBetweenRequestsIsReplaced() async throws {
    let server = ScriptedServer { peer in
      // Promises to keep the connection, and breaks the promise.
      if peer.readRequest() != nil { peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }
    }
    try await withClient { client in
      // Often enough for some requests to be sent before the server's end of the connection is noticed.
      for _ in 0..<200 { #expect(await client.post(server.url).outcome == .response(status: 200)) }
    }
    #expect(server.acceptedCount == 200)
  }

  @Test func redirectIsAResponseAndIsNotFollowed() async throws {
    let target = ScriptedServer.answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    let server = ScriptedServer.answering(
      "HTTP/1.1 307 Temporary Redirect\r\nLocation: \(target.url)\r\nContent-Length: 4\r\n\r\nmove"
    )
    let completion = try await withClient { await $0.post(server.url) }
    #expect(completion.outcome == .response(status: 307))
    #expect(completion.excerpt == Array("move".utf8))
    #expect(target.acceptedCount == 0)
  }

  @Test func interimResponsesAreSkipped() async throws {
    let server = ScriptedServer.answering(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
        + "HTTP/1.1 503 Busy\r\nretry-after: 120\r\nContent-Length: 0\r\n\r\n"
    )
    let completion = try await withClient { await $0.post(server.url) }
    #expect(completion.outcome == .response(status: 503))
    #expect(completion.retryAfter == .seconds(120))
  }

  @Test func retryAfterIsReadFromTheResponseOnlyAndNotForSuccess() async throws {
    let success = ScriptedServer.answering("HTTP/1.1 200 OK\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
    let busy = ScriptedServer.answering(
      "HTTP/1.1 429 Slow\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n"
    )
    let plain = ScriptedServer.answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    try await withClient { client in
      #expect(await client.post(success.url).retryAfter == nil)
      #expect(await client.post(busy.url).retryAfter == .date(784_111_777))
      // The same handle again: nothing is left over from its last use.
      #expect(await client.post(plain.url).retryAfter == nil)
    }
  }

  @Test func excerptIsTheBeginningOfTheBodyAndIsNotDecoded() async throws {
    let body = String(repeating: "x", count: 3000)
    let server = ScriptedServer.answering(
      "HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: 3000\r\n\r\n" + body
    )
    var configuration = HTTPEngineConfiguration.loopback
    configuration.excerptBytes = 100
    let completion = try await withClient(configuration) { await $0.post(server.url) }
    #expect(completion.outcome == .response(status: 500))
    #expect(completion.excerpt == Array(body.utf8.prefix(100)))
  }

  @Test(arguments: [
    "application/json", "application/cloudevents+json", "application/x-www-form-urlencoded",
    "text/plain; charset=utf-8",
  ])
  func contentTypeIsTheOneTheRequestNames(type: String) async throws {
    let received = Mutex<ReceivedRequest?>(nil)
    let server = ScriptedServer { peer in
      while let request = peer.readRequest() {
        received.withLock { $0 = request }
        peer.send("HTTP/1.1 204 No Content\r\n\r\n")
      }
    }
    _ = try await withClient { await $0.post(server.url, headers: ["content-type: \(type)"]) }
    let lines = try #require(received.withLock { $0 }).lines.filter { $0.lowercased().hasPrefix("content-type:") }
    #expect(lines == ["content-type: \(type)"])
  }

  @Test(arguments: [(0, 0), (1, 1), (100, 100), (3000, 3000), (65_536, 3000), (-1, 0), (.max, 3000)])
  func bodyOfASuccessIsKeptAsFarAsTheRequestAsks(wanted: Int, count: Int) async throws {
    let body = String(repeating: "x", count: 3000)
    let success = ScriptedServer.answering("HTTP/1.1 201 Created\r\nContent-Length: 3000\r\n\r\n" + body)
    let failure = ScriptedServer.answering("HTTP/1.1 400 Bad\r\nContent-Length: 3000\r\n\r\n" + body)
    try await withClient { client in
      let kept = await client.post(success.url, keptBodyBytes: wanted)
      #expect(kept.keptBody == Array(body.utf8.prefix(count)))
      #expect(kept.excerpt.isEmpty)
      let refused = await client.post(failure.url, keptBodyBytes: wanted)
      #expect(refused.keptBody.isEmpty)
      #expect(refused.excerpt.count == 1024)
      // The same handle again: a wish holds for one request.
      #expect(await client.post(success.url).keptBody.isEmpty)
    }
  }

  @Test func keptBodyIsBoundedByTheResponseLimit() async throws {
    let server = ScriptedServer { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 200 OK\r\n\r\n")
      while peer.send([UInt8](repeating: 0x61, count: 65_536)) {}
    }
    let completion = try await withClient { await $0.post(server.url, keptBodyBytes: .max) }
    #expect(completion.keptBody.count == 65_536)
  }

  @Test func noMoreConnectionsThanAllowedToOneHost() async throws {
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    var configuration = HTTPEngineConfiguration.loopback
    configuration.maxConnectionsPerHost = 3
    let completions = try await withClient(configuration) { await $0.post(server.url, times: 60) }
    #expect(completions.allSatisfy { $0.outcome == .response(status: 204) })
    #expect(server.acceptedCount <= 3)
  }

  @Test func requestThatWaitsForItsTurnKeepsItsDeadline() async throws {
    let server = ScriptedServer { $0.hang() }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.maxConnectionsPerHost = 1
    try await withClient(configuration) { client in
      async let first = client.post(server.url, timeout: .milliseconds(600))
      async let second = client.post(server.url, timeout: .milliseconds(300))
      #expect(await second.failure?.kind == .aborted)
      #expect(await first.failure?.kind == .timeout)
    }
    #expect(server.acceptedCount <= 1)
  }

  @Test func hangingExchangesDoNotHoldUpOthers() async throws {
    let hung = ScriptedServer { $0.hang() }
    let server = ScriptedServer.answering("HTTP/1.1 204 No Content\r\n\r\n")
    var configuration = HTTPEngineConfiguration.loopback
    // Fewer than hang: they must not push the other host's connection out of the pool.
    configuration.maxConnections = 10
    try await withClient(configuration) { client in
      async let waiting = client.post(hung.url, times: 100)
      for _ in 0..<50 { #expect(await client.post(server.url).outcome == .response(status: 204)) }
      client.engine.shutdown()
      let outcomes = await waiting
      #expect(outcomes.allSatisfy { $0.failure?.kind == .aborted })
    }
    #expect(server.acceptedCount == 1)
  }
}
