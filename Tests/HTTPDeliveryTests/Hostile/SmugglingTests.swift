import Dispatch
import Synchronization
import Testing

@testable import HTTPDelivery

/// Answers that wait on a kept-alive connection for a request that has not been sent yet.
@Suite struct SmugglingTests {
  private static let polite = "HTTP/1.1 207 Polite\r\nContent-Length: 0\r\n\r\n"
  private static let smuggled = "HTTP/1.1 200 OK\r\nX-Smuggled: yes\r\nContent-Length: 0\r\n\r\n"

  /// While nobody is looking: after the first exchange has ended, before the next begins.
  @Test(arguments: [false, true], ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "junk", "\r\n", "H"])
  func answerSentToAnIdleConnectionIsNotTheNextRequests(overTLS: Bool, junk: String) async throws {
    let tls = overTLS ? try await ScriptedTLS.shared() : nil
    let hasEnded = DispatchSemaphore(value: 0)
    let (sent, hasSent) = AsyncStream<Void>.makeStream()
    let isFirst = Atomic<Bool>(true)
    let server = ScriptedServer(tls: tls) { peer in
      while peer.readRequest() != nil {
        peer.send(Self.polite)
        guard isFirst.exchange(false, ordering: .sequentiallyConsistent) else { continue }
        hasEnded.wait()
        // On loopback, what has been sent has been received.
        peer.send(junk)
        hasSent.yield()
      }
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = tls?.authorityFile
    let url = overTLS ? "https://localhost:\(server.port)/" : server.url
    try await withClient(configuration) { client in
      #expect(await client.post(url).outcome == .response(status: 207))
      hasEnded.signal()
      for await _ in sent { break }
      for _ in 0..<3 { #expect(await client.post(url).outcome == .response(status: 207)) }
    }
    #expect(server.acceptedCount == 2)
  }

  /// In the same write, wherever the client's read happens to end: just before, at, and just after each buffer's end. All of
  /// it fits into one TLS record, so it has arrived as a whole; what is sent after the next request is an answer to it.
  @Test(arguments: [false, true])
  func answerBehindAnAnswerIsNotTheNextRequestsHoweverTheyAreCut(overTLS: Bool) async throws {
    let tls = overTLS ? try await ScriptedTLS.shared() : nil
    let sizes = [512, 1024, 2048, 4096, 8192, 12_288].flatMap { ($0 - 2)...($0 + 2) }
    let round = Atomic<Int>(0)
    let server = ScriptedServer(tls: tls) { peer in
      while let request = peer.readRequest() {
        guard request.lines[0].contains("/hostile"), round.load(ordering: .relaxed) < sizes.count else {
          peer.send(Self.polite)
          continue
        }
        let size = sizes[round.add(1, ordering: .relaxed).oldValue]
        // Three digits or more: what the header takes is known only when the length has been written.
        let head = { (length: Int) in "HTTP/1.1 500 No\r\nContent-Length: \(length)\r\n\r\n" }
        var length = size
        while head(length).utf8.count + length > size { length -= 1 }
        peer.send(head(length) + String(repeating: "a", count: length) + Self.smuggled)
      }
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = tls?.authorityFile
    let base = overTLS ? "https://localhost:\(server.port)" : "http://127.0.0.1:\(server.port)"
    try await withClient(configuration) { client in
      for size in sizes {
        #expect(await client.post(base + "/hostile").outcome == .response(status: 500), "\(size)")
        #expect(await client.post(base + "/next").outcome == .response(status: 207), "\(size)")
      }
    }
  }

  /// Without a length, the end of the connection is the end of the answer. Over TLS somebody on the way could have cut it
  /// short, but not what decides: the header came whole. Small servers often end so.
  @Test func endOfTheConnectionNeedNotBeAnnounced() async throws {
    let tls = try await ScriptedTLS.shared()
    let server = ScriptedServer(tls: tls) { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 200 OK\r\n\r\nhello")
      peer.cut()
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = tls.authorityFile
    let completion = try await withClient(configuration) { await $0.post("https://localhost:\(server.port)/") }
    #expect(completion.outcome == .response(status: 200))
  }

  @Test func answerWithALengthNeedsNoAnnouncement() async throws {
    let tls = try await ScriptedTLS.shared()
    let server = ScriptedServer(tls: tls) { peer in
      guard peer.readRequest() != nil else { return }
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
      peer.cut()
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = tls.authorityFile
    try await withClient(configuration) { client in
      for _ in 0..<3 {
        #expect(await client.post("https://localhost:\(server.port)/").outcome == .response(status: 200))
      }
    }
  }

  /// However far an answer had come when the connection ended, it is no answer before it is whole.
  @Test(arguments: [false, true], [false, true])
  func answerCutShortAnywhereIsNoAnswer(overTLS: Bool, byReset: Bool) async throws {
    let tls = overTLS ? try await ScriptedTLS.shared() : nil
    for whole in [
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
      let bytes = Array(whole.utf8)
      let connection = Atomic<Int>(0)
      let server = ScriptedServer(tls: tls) { peer in
        let count = connection.add(1, ordering: .sequentiallyConsistent).oldValue
        guard peer.readRequest() != nil else { return }
        if count > 0 { peer.send(Array(bytes.prefix(count))) }
        if byReset { peer.reset() }
      }
      var configuration = HTTPEngineConfiguration.loopback
      configuration.caFile = tls?.authorityFile
      let url = overTLS ? "https://localhost:\(server.port)/" : server.url
      try await withClient(configuration) { client in
        // libcurl takes the last CR of a chunked body for its end; nothing of the answer comes after it.
        let isChunked = whole.contains("chunked")
        for count in 0..<(isChunked ? bytes.count - 1 : bytes.count) {
          let failure = await client.post(url).failure
          #expect(failure != nil && failure?.kind != .timeout, "\(count) of \(whole.debugDescription)")
        }
        if isChunked { _ = await client.post(url) }
        // A reset may overtake even a whole answer.
        let last = await client.post(url).outcome
        if !byReset { #expect(last == .response(status: whole.contains("204") ? 204 : 200)) }
      }
    }
  }
}

@Suite struct ResponseHeadTests {
  private func problem(_ lines: [String], isHTTP2: Bool = false) -> ResponseHead.Problem? {
    var head = ResponseHead()
    for line in lines {
      let problem = Array((line + "\r\n").utf8).withUnsafeBytes { head.take($0, isHTTP2: isHTTP2) }
      if let problem { return problem }
    }
    return nil
  }

  @Test(arguments: [
    ["HTTP/1.1 200 OK"], ["HTTP/1.0 200"], ["HTTP/1.1 200 "], ["HTTP/1.1 200 OK", "Content-Length: 5"],
    ["HTTP/1.1 200 OK", "content-LENGTH:\t5 ", "Content-Length: 5"], ["HTTP/1.1 200 OK", "Content-Length-Extra: x"],
    ["HTTP/1.1 100 Go", "Content-Length: 5", "HTTP/1.1 200 OK", "Content-Length: 6"], ["HTTP/1.1 200 OK", "Host: x"],
  ])
  func validHeaderHasNoProblem(lines: [String]) {
    #expect(problem(lines) == nil)
  }

  @Test(arguments: [
    "", "x", "-1", "+1", "0x1", "1e1", "5,5", "5 5", "5;", "1.0", "9999999999999999999", "٥", "5\u{0}",
  ])
  func lengthMustBeANumber(value: String) {
    #expect(problem(["HTTP/1.1 200 OK", "Content-Length: \(value)"]) == .contentLength)
  }

  @Test func lengthsMustAgree() {
    #expect(problem(["HTTP/1.1 200 OK", "Content-Length: 5", "CONTENT-LENGTH: 6"]) == .contentLengths)
  }

  @Test func statusLineOfHTTP2BelongsToHTTP2() {
    #expect(problem(["HTTP/2 200 "]) == .statusLine)
    #expect(problem(["HTTP/2 200 "], isHTTP2: true) == nil)
    #expect(problem(["HTTP/2 20 "], isHTTP2: true) == .statusLine)
    #expect(problem(["HTTP/1.1 2000 OK"], isHTTP2: true) == .statusLine)
  }
}
