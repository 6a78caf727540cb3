import Synchronization
import Testing

@testable import HTTPDelivery

/// Whatever a server does: the exchange ends, it counts as delivered only if it was, not much is read, and the next request
/// gets its own answer.
@Suite struct HostileAnswerTests {
  /// A status that no hostile answer has.
  private static let polite = "HTTP/1.1 207 Polite\r\nContent-Length: 0\r\n\r\n"
  /// Room for what the kernel takes on both sides before the client has said no. An endless answer soon passes it.
  private static let sentLimitBytes = 32 << 20

  @Test(arguments: HostileAnswers.all)
  func hostileAnswerHarmsNobody(answer: HostileAnswer) async throws {
    try await expectHarmless(answer, tls: nil)
  }

  @Test(arguments: HostileAnswers.all)
  func hostileAnswerHarmsNobodyOverTLS(answer: HostileAnswer) async throws {
    try await expectHarmless(answer, tls: try await ScriptedTLS.shared())
  }

  private func expectHarmless(_ answer: HostileAnswer, tls: ScriptedTLS?) async throws {
    let acts = Atomic<Int>(0)
    let isOver = Atomic<Bool>(false)
    let (sentBytes, hasSent) = AsyncStream<Int>.makeStream()
    let server = ScriptedServer(tls: tls) { peer in
      guard !answer.readsRequest || peer.readRequest() != nil else { return }
      if isOver.load(ordering: .sequentiallyConsistent) {
        if answer.readsRequest { peer.send(Self.polite) }
      } else {
        acts.add(1, ordering: .sequentiallyConsistent)
        answer.act(peer)
        hasSent.yield(peer.sentBytes)
        if answer.closes { return }
      }
      while peer.readRequest() != nil { peer.send(Self.polite) }
    }
    var configuration = HTTPEngineConfiguration.loopback
    configuration.maxConnectionsPerHost = 1
    configuration.caFile = tls?.authorityFile
    let url = tls == nil ? server.url : "https://localhost:\(server.port)/hook"
    try await withClient(configuration) { client in
      var timeout = answer.timeout
      var outcome: HTTPOutcome
      var isTooEarly: Bool
      repeat {
        let before = acts.load(ordering: .sequentiallyConsistent)
        outcome = await client.post(url, body: answer.body, timeout: timeout).outcome
        timeout *= 2
        // On a busy machine the deadline may pass before the server has said anything; then it gets longer.
        let hasActed = acts.load(ordering: .sequentiallyConsistent) > before
        isTooEarly = outcome.isTimeout && (!hasActed || !answer.expected.isMet(by: outcome))
      } while isTooEarly && timeout < .seconds(60)
      isOver.store(true, ordering: .sequentiallyConsistent)
      #expect(answer.expected.isMet(by: outcome), "\(outcome)")
      // The slot is free again, and nothing that was said before is taken for this answer.
      let next = await client.post(url)
      #expect(next.outcome == .response(status: 207))
    }
    // Whoever floods has noticed by now that the client is gone, or is about to.
    for await count in sentBytes {
      #expect(count <= Self.sentLimitBytes)
      break
    }
  }
}

extension HTTPOutcome {
  fileprivate var isTimeout: Bool {
    if case .failure(let failure) = self { failure.kind == .timeout } else { false }
  }
}
