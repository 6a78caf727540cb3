import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct RecordTests {
  @Test func failedThenDeadLetterKeepsPayloadAndReason() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.execute(
        """
        SELECT outbox.publish('order.created', '{"ü": [1, {"a": null}]}', 'k', '', '{"trace": "x"}')
        """
      )
      let cut = try #require(try await worker.cut())
      try await worker.record(
        cut.outcomes(.failed) {
          $0.status = 500
          $0.error = "the endpoint answered 500"
          $0.response = "oops"
        },
        finished: [cut.batch!]
      )
      #expect(try await worker.client.int("SELECT attempts FROM outbox.delivery WHERE last_status = 500") == 1)
      let claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.attempts) == [1])
      var outcome = claimed[0].outcome(.failed, reason: "exhausted")
      outcome.status = 503
      outcome.error = "the endpoint answered 503"
      try await worker.record([outcome])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
      let letter = try await worker.client.rows(
        """
        SELECT url, type, key, payload = '{"ü": [1, {"a": null}]}', metadata ->> 'trace', attempts, reason, last_status,
          last_error, first_attempt_at IS NOT NULL AND first_attempt_at < died_at FROM outbox.dead_letter
        """
      )
      #expect(
        letter == [
          [
            "https://example.com/hook", "order.created", "k", "t", "x", "2", "exhausted", "503",
            "the endpoint answered 503", "t",
          ]
        ]
      )
    }
  }

  @Test func goneDisablesTheEndpointAndUnsubscribesIt() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      let cut = try #require(try await worker.cut(direct: 1))
      let changes = try await worker.record(
        cut.outcomes(.failed) {
          $0.status = 410
          $0.reason = "gone"
        },
        finished: [cut.batch!]
      )
      #expect(changes.map(\.endpoint) == [endpoint])
      #expect(changes.map(\.state) == ["disabled"])
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await worker.client.publish(1)
      #expect(try await worker.cut()?.parked == 0)
      #expect(try await worker.client.column("SELECT reason FROM outbox.dead_letter") == ["gone"])
      try await worker.client.execute("SELECT outbox.resume(\(endpoint))")
      #expect(try await worker.claim([endpoint]).count == 1)
    }
  }

  @Test func returnedDeliveryUsesUpNoAttempt() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      try await worker.record(
        cut.outcomes(.returned) {
          $0.attempt = 0
          $0.retryIn = .zero
        },
        finished: [cut.batch!]
      )
      let claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.attempts) == [0])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint_health") == 0)
    }
  }

  /// An endpoint that its owner deleted with its failures still in flight must not keep the others from being recorded.
  @Test func deletedEndpointDoesNotBlockTheRecord() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let kept = try await worker.client.addEndpoint()
      let deleted = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      try await worker.client.execute("DELETE FROM outbox.endpoint WHERE id = \(deleted)")
      try await worker.record(cut.outcomes(.failed), finished: [cut.batch!])
      #expect(try await worker.client.column("SELECT endpoint_id FROM outbox.endpoint_health") == ["\(kept)"])
    }
  }

  /// Receivers answer with anything.
  @Test func oddTextOfAReceiverIsRecorded() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      try await worker.record(
        cut.outcomes(.failed) {
          $0.response = "a\0b\u{1F426}"
          $0.error = "\0"
          $0.status = 599
        },
        finished: [cut.batch!]
      )
      #expect(try await worker.client.value("SELECT response FROM outbox.attempt") == "a\u{FFFD}b\u{1F426}")
    }
  }

  @Test func recorderOfAnotherDispatchersClaimChangesNothing() async throws {
    try await withDatabase { database in
      let (owner, stranger) = (try await Worker(database), try await Worker(database))
      let endpoint = try await owner.client.addEndpoint()
      try await owner.client.publish(1)
      _ = try await owner.cut(direct: 0)
      let claimed = try await owner.claim([endpoint])
      try await stranger.record(claimed.map { $0.outcome(.failed) })
      #expect(try await owner.client.int("SELECT count(*) FROM outbox.delivery WHERE dispatcher_id = \(owner.id)") == 1)
    }
  }

  /// Its endpoint is gone, so it cannot be sent; it must not vanish either.
  @Test func deadLetterOfADeletedEndpointIsKept() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(.failed) { $0.reason = "exhausted" }, finished: [cut.batch!])
      try await worker.client.execute("DELETE FROM outbox.endpoint WHERE id = \(endpoint)")
      let error = try await worker.client.refusal("SELECT outbox.redrive(id) FROM outbox.dead_letter")
      #expect(error.sqlState == "P0002")
      #expect(try await worker.client.int("SELECT outbox.redrive_where()") == 0)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter") == 1)
    }
  }
}
