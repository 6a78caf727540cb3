import Postgres

/// The outcome of one try, as it is written down.
package struct Outcome: Sendable {
  /// The raw values are those of type `outbox.outcome`.
  package enum Kind: String, Sendable {
    case delivered, failed, returned
  }
  package var delivery: DeliveryKey
  /// The batch it was cut in; nil if it was claimed.
  package var batch: Int64?
  package var kind: Kind
  /// The number of this try, from 1; of a returned one, the number of tries so far.
  package var attempt: Int
  package var status: Int?
  package var duration: Duration = .zero
  package var error: String?
  /// The beginning of the answer, failures only.
  package var response: String?
  /// When to try again; nil together with `reason` nil if it was delivered.
  package var retryIn: Duration?
  /// `outbox.dead_letter.reason`, if it is given up.
  package var reason: String?

  package init(delivery: DeliveryKey, batch: Int64?, kind: Kind, attempt: Int) {
    self.delivery = delivery
    self.batch = batch
    self.kind = kind
    self.attempt = attempt
  }
}

/// An endpoint whose circuit or state a record changed.
package struct EndpointChange: Sendable, Equatable {
  package var endpoint: Int64
  package var circuit: String
  package var state: String
}

extension OutboxStore {
  /// Writes outcomes, all in one transaction, and removes the batches they finish.
  ///
  /// - Parameter again: this very call was made before and its reply was lost.
  package func record(
    dispatcher: Int64,
    _ outcomes: [Outcome],
    finishedBatches: [Int64],
    again: Bool,
    resyncs: Int? = nil
  )
    throws(PostgresError) -> [EndpointChange]
  {
    // Text that came from elsewhere may hold a NUL, which PostgreSQL's text cannot; it must not cost us the whole batch.
    func text(_ value: String?) -> String? { value?.replacing("\0", with: "\u{FFFD}") }
    // What only failures have is left out when there are none: most calls.
    func unlessDelivered(_ parameter: ([Outcome]) -> Parameter) -> Parameter {
      parameter(outcomes.allSatisfy { $0.kind == .delivered } ? [] : outcomes)
    }
    let rows = try connection.query(
      """
      SELECT endpoint_id, circuit, state \
      FROM outbox.record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
      """,
      [
        .int8(dispatcher),
        .uuidArray(outcomes.map(\.delivery.event)),
        .int8Array(outcomes.map(\.delivery.endpoint)),
        .int8Array(outcomes.map(\.batch)),
        .int4Array(outcomes.map { Int32(clamping: $0.attempt) }),
        .textArray(outcomes.map(\.kind.rawValue)),
        .int4Array(outcomes.map { $0.status.map { Int32(clamping: $0) } }),
        .int4Array(outcomes.map { Int32(clamping: $0.duration.milliseconds) }),
        unlessDelivered { .textArray($0.map { text($0.error) }) },
        unlessDelivered { .textArray($0.map { text($0.response) }) },
        unlessDelivered { .int8Array($0.map { $0.retryIn?.milliseconds }) },
        unlessDelivered { .textArray($0.map(\.reason)) },
        .int8Array(finishedBatches),
        .bool(again),
        .int8(resyncs.map { Int64($0) }),
      ]
    )
    var changes: [EndpointChange] = []
    for row in 0..<rows.count {
      changes.append(
        EndpointChange(
          endpoint: try rows.required(rows.int64(row, 0), 0),
          circuit: try rows.required(rows.string(row, 1), 1),
          state: try rows.required(rows.string(row, 2), 2)
        )
      )
    }
    return changes
  }
}
