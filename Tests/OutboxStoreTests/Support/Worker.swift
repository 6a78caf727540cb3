import Foundation
import OutboxStore
import Postgres

/// A dispatcher as a test plays it: a session and a lease.
struct Worker: Sendable {
  let client: Client
  let id: Int64

  init(_ database: Database, lease: Duration = .seconds(600)) async throws {
    client = database.client()
    id = try await client.store {
      try $0.register(name: "worker", host: "here", pid: 1, version: "test", lease: lease)
    }
  }

  func cut(
    events: Int = 500,
    direct: Int = 10_000,
    perEndpoint: Int = 10_000,
    bytes: Int = 1 << 30,
    busy: [Int64] = [],
    slots: [Int] = []
  ) async throws -> Cut? {
    try await client.store { [id] in
      try $0.cut(
        dispatcher: id,
        events: events,
        direct: direct,
        perEndpoint: perEndpoint,
        bytes: bytes,
        busy: busy,
        slots: slots
      )
    }
  }

  func claim(_ endpoints: [Int64], slots: Int = 100, floors: [Timestamp?]? = nil) async throws -> [Claimed] {
    try await claimOrWait(endpoints, slots: slots, floors: floors).deliveries
  }

  /// With what a rate limit says of when to come again.
  func claimOrWait(_ endpoints: [Int64], slots: Int = 100, floors: [Timestamp?]? = nil) async throws -> Claim {
    try await client.store { [id] in
      try $0.claim(
        dispatcher: id,
        endpoints: endpoints,
        slots: endpoints.map { _ in slots },
        floors: floors ?? endpoints.map { _ in nil }
      )
    }
  }

  @discardableResult
  func record(_ outcomes: [Outcome], finished: [Int64] = [], again: Bool = false) async throws -> [EndpointChange] {
    try await client.store { [id] in
      try $0.record(dispatcher: id, outcomes, finishedBatches: finished, again: again)
    }
  }

  /// Lets the lease run out now.
  func expire() async throws {
    try await client.execute(
      "UPDATE outbox.dispatcher SET expires_at = clock_timestamp() - interval '1 s' WHERE id = \(id)"
    )
  }

  /// Cuts until there is nothing left and returns the cuts in order. A call that only moves the position on returns
  /// nothing, so two in a row end it.
  func drain(events: Int = 500) async throws -> [Cut] {
    var cuts: [Cut] = []
    var empty = 0
    while empty < 2 {
      if let cut = try await cut(events: events) {
        cuts.append(cut)
        empty = 0
      } else {
        empty += 1
      }
    }
    return cuts
  }
}

extension Cut {
  var pairs: [DeliveryKey] {
    direct.flatMap { one in one.endpoints.map { DeliveryKey(event: one.event.id, endpoint: $0) } }
  }

  func outcomes(_ kind: Outcome.Kind = .delivered, _ change: (inout Outcome) -> Void = { _ in }) -> [Outcome] {
    pairs.map { pair in
      var outcome = Outcome(delivery: pair, batch: batch, kind: kind, attempt: 1)
      if kind == .delivered { outcome.status = 200 }
      if kind == .failed { outcome.retryIn = .zero }
      change(&outcome)
      return outcome
    }
  }
}

extension Claimed {
  var pair: DeliveryKey { DeliveryKey(event: event.id, endpoint: endpoint) }

  func outcome(_ kind: Outcome.Kind = .delivered, reason: String? = nil) -> Outcome {
    var outcome = Outcome(delivery: pair, batch: nil, kind: kind, attempt: attempts + (kind == .returned ? 0 : 1))
    if kind == .failed { outcome.retryIn = .zero }
    outcome.reason = reason
    return outcome
  }
}

extension Client {
  @discardableResult
  func addEndpoint(_ arguments: String = "") async throws -> Int64 {
    let more = arguments.isEmpty ? "" : ", \(arguments)"
    return Int64(try await int("SELECT outbox.add_endpoint('https://example.com/hook'\(more))"))
  }

  /// Publishes events of type t, with payloads {"n": from}, {"n": from + 1}…, in one statement.
  func publish(_ count: Int = 1, type: String = "t", key: String? = nil, from: Int = 1) async throws {
    try await execute(
      """
      INSERT INTO outbox.event (type, key, payload) SELECT '\(type)', \(key.map { "'\($0)'" } ?? "NULL"), \
      jsonb_build_object('n', n) FROM generate_series(\(from), \(from + count - 1)) n
      """
    )
  }
}

extension OutboxEvent {
  /// The number in the payload `{"n": 1}`.
  var number: Int { Int(String(decoding: payload, as: UTF8.self).filter(\.isNumber)) ?? -1 }
}
