import Synchronization

@testable import HTTPDelivery

/// An engine whose exchanges can be awaited one by one.
final class TestClient: Sendable {
  private struct State {
    var nextTag: UInt64 = 1
    var waiting: [UInt64: CheckedContinuation<HTTPCompletion, Never>] = [:]
    var batches: [Int] = []
  }

  /// Filled by the engine's handler, which must not own the engine it belongs to.
  private final class Mailbox: Sendable {
    let state = Mutex(State())
  }

  let engine: HTTPEngine
  private let mailbox: Mailbox

  init(_ configuration: HTTPEngineConfiguration) {
    let mailbox = Mailbox()
    self.mailbox = mailbox
    engine = HTTPEngine(configuration: configuration) { completions in
      let continuations = mailbox.state.withLock { state in
        state.batches.append(completions.count)
        return completions.map { state.waiting.removeValue(forKey: $0.tag) }
      }
      for (continuation, completion) in zip(continuations, completions) { continuation?.resume(returning: completion) }
      return []
    }
  }

  func post(
    _ url: String,
    body: [UInt8] = Array("{}".utf8),
    headers: [String] = ["Content-Type: application/json"],
    timeout: Duration = .seconds(30),
    clientIdentity: ClientIdentity? = nil,
    keptBodyBytes: Int = 0
  ) async -> HTTPCompletion {
    await withCheckedContinuation { continuation in
      let tag = mailbox.state.withLock { state in
        defer { state.nextTag += 1 }
        state.waiting[state.nextTag] = continuation
        return state.nextTag
      }
      engine.submit([
        HTTPRequest(
          tag: tag,
          url: url,
          headers: headers,
          body: RequestBody(body),
          timeout: timeout,
          clientIdentity: clientIdentity,
          keptBodyBytes: keptBodyBytes
        )
      ])
    }
  }

  /// Posts many at once, in one submission each.
  func post(_ url: String, times: Int) async -> [HTTPCompletion] {
    await withTaskGroup(of: HTTPCompletion.self) { group in
      for _ in 0..<times { group.addTask { await self.post(url) } }
      return await group.reduce(into: []) { $0.append($1) }
    }
  }
}

extension HTTPEngineConfiguration {
  /// May talk to servers on loopback, which the default policy refuses.
  static var loopback: HTTPEngineConfiguration {
    HTTPEngineConfiguration(egress: EgressPolicy(allowHTTP: true, allowedNetworks: [cidr("127.0.0.0/8"), cidr("::1")]))
  }
}

func cidr(_ text: String) -> CIDR {
  do { return try CIDR(parsing: text) } catch { fatalError(error.message) }
}

/// Runs an engine around `body`.
func withClient<Result: Sendable>(
  _ configuration: HTTPEngineConfiguration = .loopback,
  _ body: @Sendable (TestClient) async throws -> Result
) async throws -> Result {
  let client = TestClient(configuration)
  async let run: Void = client.engine.run()
  do {
    let result = try await body(client)
    client.engine.shutdown()
    await run
    return result
  } catch {
    client.engine.shutdown()
    await run
    throw error
  }
}

extension HTTPCompletion {
  var failure: HTTPFailure? {
    if case .failure(let failure) = outcome { failure } else { nil }
  }
}
