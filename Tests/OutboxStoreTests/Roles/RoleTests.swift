import Foundation
import OutboxStore
import Postgres
import Testing

/// What each role is there for works, and what its rights do not show is refused. Who may do what with which object,
/// exhaustively, is in ``PrivilegeTests``.
@Suite struct RoleTests {
  @Test func publisherInsertsEventsAndNothingElse() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.addEndpoint()
      try await client.becomes("outbox_publisher")
      try await client.execute(
        """
        INSERT INTO outbox.event (type, payload, tenant, key, metadata, not_before)
        VALUES ('t', '1', 'a', 'k', '{}', now());
        SELECT outbox.publish('t', '2', dedup_key => 'd'), outbox.publish('t', '3', dedup_key => 'd');
        """
      )
      let refused = [
        "INSERT INTO outbox.event (id, type, payload) VALUES (gen_random_uuid(), 't', '1')",
        "INSERT INTO outbox.event (tx, type, payload) VALUES ('3', 't', '1')",
        "INSERT INTO outbox.event (created_at, type, payload) VALUES (now(), 't', '1')",
        "INSERT INTO outbox.event (type, payload) VALUES ('t', '1') RETURNING id",
        "INSERT INTO outbox.event_default (type, payload) VALUES ('t', '1')",
        "UPDATE outbox.event SET type = 'u'", "DELETE FROM outbox.event", "TRUNCATE outbox.event",
        "INSERT INTO outbox.endpoint (url) VALUES ('https://example.com')",
        "INSERT INTO outbox.delivery (event_id, endpoint_id, due_at) VALUES (gen_random_uuid(), 1, now())",
        "SELECT nextval('outbox.delivery_seq')", "CREATE TABLE outbox.mine ()",
      ]
      for statement in refused {
        #expect(try await client.refusal(statement).sqlState == "42501", "\(statement)")
      }
      let owner = database.client()
      #expect(try await owner.column("SELECT payload FROM outbox.event ORDER BY id") == ["1", "2"])
    }
  }

  /// A receiver may trust what it is told of its endpoint: only Martlet, operators and the owner speak in Martlet's name.
  @Test func publisherDoesNotSpeakForMartlet() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let endpoint = try await owner.addEndpoint("event_types => '{martlet.*}'")
      let direct = "INSERT INTO outbox.event (type, payload) VALUES ('martlet.endpoint.disabled', '{}')"
      let publish = "SELECT outbox.publish('martlet.endpoint.disabled', '{}'"
      for role in ["outbox_publisher", "postgres", "outbox_operator", "outbox_dispatcher"] {
        let client = database.client()
        try await client.becomes(role)
        if role == "outbox_publisher" {
          let error = try await client.refusal(direct)
          #expect(error.sqlState == "23514" && error.message.contains("martlet_is_reserved"), "\(error)")
          // In one statement with others, and by COPY, too.
          let many = "INSERT INTO outbox.event (type, payload) SELECT t, '1' FROM unnest('{a,martlet.x,b}'::text[]) t"
          #expect(try await client.refusal(many).sqlState == "23514")
          try await client.execute(
            "INSERT INTO outbox.event (type, payload) VALUES ('martlet', '1'), ('martlets.x', '1')"
          )
        } else {
          try await client.execute(direct)
        }
        // By this function nobody does: it runs with the owner's rights.
        for more in [")", ", dedup_key => 'd')"] {
          let error = try await client.refusal(publish + more)
          #expect(error.sqlState == "23514", "\(role): \(error)")
        }
      }
      _ = try await owner.rows("SELECT outbox.ping(\(endpoint))")
      #expect(try await owner.int("SELECT count(*) FROM outbox.event WHERE type LIKE 'martlet.%'") == 4)
    }
  }

  @Test func operatorRepairsButReadsNoSecrets() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = database.client()
      try await client.becomes("outbox_operator")
      let endpoint = try await client.addEndpoint("secret => NULL, ordered => true")
      let other = try await client.addEndpoint()
      try await client.execute("SELECT outbox.publish('t', '1', 'k'), outbox.publish('t', '2', 'k')")
      _ = try await worker.cut(direct: 0)
      let claimed = try await worker.claim([endpoint, other])
      try await worker.record(claimed.map { $0.outcome(.failed, reason: "exhausted") })
      let steps = [
        "pause(\(endpoint))", "resume(\(endpoint))", "disable(\(other))", "rotate_secret(\(endpoint))",
        "redrive((SELECT min(id) FROM outbox.dead_letter))", "discard((SELECT max(id) FROM outbox.dead_letter))",
        "redrive_where(\(other))", "reconcile()", "maintain()", "recover()", "stamp_subscriptions()",
        "conservation(now() - interval '1 hour')", "prove(10, '0 s')", "prove_again()", "repair()",
        "explain((SELECT min(id::text)::uuid FROM outbox.event))",
        "waiting()",
        "release(\(worker.id))", "anchor_problem()",
      ]
      for step in steps { _ = try await client.rows("SELECT outbox.\(step)") }
      _ = try await client.rows("SELECT endpoint_id, created_at, expires_at FROM outbox.endpoint_secret")
      try await client.execute("UPDATE outbox.setting SET value = '5' WHERE name = 'partitions_ahead'")
      try await client.execute("UPDATE outbox.endpoint SET max_attempts = 3, ordered = false WHERE id = \(endpoint)")
      let refused = [
        "SELECT secret FROM outbox.endpoint_secret", "SELECT * FROM outbox.endpoint_secret",
        "UPDATE outbox.endpoint_secret SET secret = 'whsec_AAAA'",
        "UPDATE outbox.endpoint_secret SET expires_at = now() RETURNING secret",
        "UPDATE outbox.endpoint_secret SET expires_at = now() WHERE secret LIKE 'whsec_A%'",
        "UPDATE outbox.event SET type = 'u'", "DELETE FROM outbox.event",
        "INSERT INTO outbox.position (done, target, events) VALUES ('1:1:', '1:1:', 0)",
        "UPDATE outbox.proof SET missing = 0", "DELETE FROM outbox.proof", "DELETE FROM outbox.skipped",
        "SELECT outbox.prove_row(1)",
        "UPDATE outbox.anchor SET system_identifier = 1", "DELETE FROM outbox.attempt",
        "DELETE FROM outbox.attempt_single", "DELETE FROM outbox.attempt_packed", "DROP TABLE outbox.delivery",
        "ALTER TABLE outbox.event ADD x int", "CREATE TABLE outbox.mine ()", "SELECT outbox.reanchor('now')",
      ]
      for statement in refused { #expect(try await client.refusal(statement).sqlState == "42501", "\(statement)") }
    }
  }

  @Test func dispatcherRunsTheProtocolAndCannotChangeTheSchema() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let endpoint = try await owner.addEndpoint()
      let ordered = try await owner.addEndpoint("ordered => true")
      try await owner.publish(6, key: "k")
      let worker = try await Worker(database)
      try await worker.client.becomes("outbox_dispatcher")
      let cut = try #require(try await worker.cut(direct: 3))
      try await worker.record(
        cut.outcomes(.failed) {
          $0.status = 410
          $0.reason = "gone"
        },
        finished: [cut.batch!]
      )
      let claimed = try await worker.claim([endpoint, ordered])
      try await worker.record(claimed.map { $0.outcome(.failed) })
      try await worker.record(try await worker.claim([ordered]).map { $0.outcome() })
      try await worker.client.store { store in
        _ = try store.register(name: "b", host: "h", pid: 1, version: "v", lease: .zero)
        _ = try store.recover()
        _ = try store.heartbeat(dispatcher: worker.id, lease: .seconds(60))
        _ = try store.waiting()
        _ = try store.watch(nil, every: .milliseconds(1), upTo: .milliseconds(2))
        _ = try store.resync(dispatcher: worker.id, held: [])
        _ = try store.maintain()
        try store.stampSubscriptions()
        #expect(try store.prove(settledFor: "0 s") == 1)
        #expect(try store.anchorProblem() == nil)
        #expect(try store.endpoints([endpoint]).first?.secrets.count == 1)
        #expect(try Migrator(store.connection).status() == .version(Migrator.newest))
        _ = try store.release(dispatcher: worker.id)
      }
      _ = try await worker.client.rows("SELECT * FROM outbox.reconcile()")
      let refused = [
        "ALTER TABLE outbox.event ADD x int", "DROP TABLE outbox.event_default", "CREATE TABLE outbox.mine ()",
        "CREATE FUNCTION outbox.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP SCHEMA outbox CASCADE",
        "TRUNCATE outbox.event", "UPDATE outbox.event SET type = 'u'", "DELETE FROM outbox.event",
        "UPDATE outbox.endpoint SET url = 'https://evil.example'", "DELETE FROM outbox.endpoint",
        "INSERT INTO outbox.endpoint (url) VALUES ('https://evil.example')", "DELETE FROM outbox.attempt",
        "DELETE FROM outbox.attempt_single", "DELETE FROM outbox.attempt_packed",
        "INSERT INTO outbox.endpoint_secret (endpoint_id, secret) VALUES (1, 'whsec_AAAA')",
        "SELECT outbox.add_partition('event', '2020-01-01')", "SELECT outbox.reanchor('now')",
        "UPDATE outbox.anchor SET system_identifier = 1", "UPDATE outbox.setting SET value = '0'",
        "DELETE FROM outbox.dead_letter", "DELETE FROM outbox.position", "DELETE FROM outbox.proof",
        "UPDATE outbox.proof SET missing = 0", "INSERT INTO outbox.proof (done, target) VALUES ('1:1:', '1:1:')",
        "INSERT INTO outbox.subscription VALUES ('', 't', 1)",
        "INSERT INTO outbox.event (tx, type, payload) VALUES ('3', 't', '1')",
        "INSERT INTO outbox.event (not_before, type, payload) VALUES (now(), 't', '1')",
      ]
      for statement in refused {
        #expect(try await worker.client.refusal(statement).sqlState == "42501", "\(statement)")
      }
    }
  }
}
