import Foundation
import Receiver
import Synchronization
import WebhookSignature

/// A real HTTP receiver whose answers the test decides, and that keeps a record of what arrived.
package final class Listener: Sendable {
  package struct Arrival: Sendable {
    package var id: String
    package var path: String
    package var body: String
    package var headers: [(name: String, value: String)]
    package var answered: Int
    package var at: ContinuousClock.Instant
    /// `n` of the payloads that TestDatabase.publish makes.
    package var n: Int? {
      (try? JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])
        .flatMap { ($0["data"] as? [String: Any])?["n"] as? Int }
    }
  }

  private final class Record: Sendable {
    let arrivals = Mutex<[Arrival]>([])
  }
  private let record = Record()
  private let receiver: Receiver
  private let task: Task<Void, any Error>
  package let port: UInt16

  /// Answers each arrival with what `answer` says; `count` is how often its id has come to this path before.
  package init(
    port: UInt16 = 0,
    secret: String? = nil,
    answer: @escaping @Sendable (_ arrival: Arrival, _ count: Int) -> Reply = { _, _ in .ok }
  ) async throws {
    let record = record
    let verifier = try secret.map { WebhookVerifier(keys: [try VerificationKey(parsing: $0)]) }
    receiver = Receiver(port: port, verifier: verifier) { delivery in
      var arrival = Arrival(
        id: delivery.webhookID ?? "",
        path: delivery.path,
        body: String(decoding: delivery.body, as: UTF8.self),
        headers: delivery.headers,
        answered: 0,
        at: delivery.receivedAt
      )
      if verifier != nil, delivery.verification != .verified { return Reply(status: 401) }
      return record.arrivals.withLock { arrivals in
        let count = arrivals.count { $0.id == arrival.id && $0.path == arrival.path }
        let reply = answer(arrival, count)
        arrival.answered = reply.hangs ? 0 : reply.status
        arrivals.append(arrival)
        return reply
      }
    }
    let receiver = receiver
    task = Task { try await receiver.run() }
    self.port = try await receiver.waitUntilListening()
  }

  deinit { task.cancel() }

  package func stop() async {
    task.cancel()
    _ = await task.result
  }

  package func url(_ path: String = "/") -> String { "http://127.0.0.1:\(port)\(path)" }
  package var arrivals: [Arrival] { record.arrivals.withLock { $0 } }
  /// Those answered 2xx, at a path.
  package func accepted(_ path: String = "/") -> [Arrival] {
    arrivals.filter { $0.path == path && (200..<300).contains($0.answered) }
  }
}
