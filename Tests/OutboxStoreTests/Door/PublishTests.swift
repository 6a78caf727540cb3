import Foundation
import OutboxStore
import Postgres
import Testing

/// What comes through the door, and what does not.
@Suite struct PublishTests {
  @Test func publishAndInsertAreTheSame() async throws {
    try await withDatabase { database in
      let client = database.client()
      let id = try await client.value(
        "SELECT outbox.publish('a.b', '{\"n\": 1}', 'k', 'acme', '{\"m\": 1}', '2030-01-01Z')"
      )
      try await client.execute(
        """
        INSERT INTO outbox.event (type, payload, key, tenant, metadata, not_before)
        VALUES ('a.b', '{"n": 1}', 'k', 'acme', '{"m": 1}', '2030-01-01Z');
        INSERT INTO outbox.event (type, payload) VALUES ('a.b', '{"n": 1}');
        """
      )
      let rows = try await client.rows(
        "SELECT type, payload, key, tenant, metadata, not_before FROM outbox.event ORDER BY id"
      )
      #expect(rows[0] == rows[1])
      #expect(rows[2] == ["a.b", #"{"n": 1}"#, nil, "", "{}", nil])
      let version7 = "SELECT id FROM outbox.event WHERE id::text ~ '^.{14}7.{4}[89ab]' AND tx < pg_current_xact_id() "
      #expect(
        try await client.column(version7 + "AND created_at - outbox.uuid_time(id) < '1 s' ORDER BY id").count == 3
      )
      #expect(try await client.column(version7 + "ORDER BY id").first == id)
    }
  }

  static let refused: [(statement: String, state: String, words: String)] = [
    ("SELECT outbox.publish('', '{}')", "23514", "event_type_is_1_to_255_letters_digits_or_marks"),
    ("SELECT outbox.publish(NULL, '{}')", "23502", "type"),
    ("SELECT outbox.publish('t', NULL)", "23502", "payload"),
    ("SELECT outbox.publish('a b', '{}')", "23514", "event_type"),
    ("SELECT outbox.publish(E't\\n', '{}')", "23514", "event_type"),
    ("SELECT outbox.publish('ä', '{}')", "23514", "event_type"),
    ("SELECT outbox.publish(repeat('t', 256), '{}')", "23514", "event_type"),
    ("SELECT outbox.publish('.t', '{}')", "23514", "event_type"),
    ("SELECT outbox.publish('t', to_jsonb(repeat('x', 5000000)))", "23514", "event_payload_is_at_most_1_mib"),
    ("SELECT outbox.publish('t', '{}', '')", "23514", "event_key_is_1_to_1024_bytes"),
    ("SELECT outbox.publish('t', '{}', repeat('k', 1025))", "23514", "event_key_is_1_to_1024_bytes"),
    ("SELECT outbox.publish('t', '{}', NULL, repeat('ä', 128))", "23514", "event_tenant_is_at_most_255_bytes"),
    ("SELECT outbox.publish('t', '{}', metadata => '[]')", "23514", "event_metadata_is_an_object"),
    ("SELECT outbox.publish('t', '{}', metadata => 'null')", "23514", "event_metadata_is_an_object"),
    (
      "SELECT outbox.publish('t', '{}', metadata => jsonb_build_object('a', repeat('x', 70000)))", "23514",
      "event_metadata_is_an_object_of_at_most_64_kib"
    ),
    (#"SELECT outbox.publish('t', '{"a": "\u0000"}')"#, "22P05", "unsupported Unicode escape sequence"),
    (#"SELECT outbox.publish('t', '"\ud800"')"#, "22P02", "invalid input syntax for type json"),
    ("SELECT outbox.publish('t', '{')", "22P02", "invalid input syntax for type json"),
    ("SELECT outbox.publish('t', repeat('[', 100000)::jsonb)", "54001", "stack depth limit exceeded"),
    ("INSERT INTO outbox.event (type) VALUES ('t')", "23502", "payload"),
    ("INSERT INTO outbox.event (payload) VALUES ('{}')", "23502", "type"),
  ]

  @Test func badEventsAreRefusedWithTheReason() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.publish(2)
      for bad in Self.refused {
        let error = try await client.refusal(bad.statement)
        #expect(error.sqlState == bad.state && error.message.contains(bad.words), "\(bad.statement): \(error)")
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 2)
    }
  }

  @Test func badBytesThroughTheDriverAreRefused() async throws {
    try await withDatabase { database in
      let client = database.client()
      let publish = "SELECT outbox.publish($1, $2)"
      for bytes in [
        [0x22, 0xff, 0xfe, 0x22], [0x22, 0xc0, 0x80, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0x00, 0x22],
      ] as [[UInt8]] {
        let error = try await client.refusal(
          "SELECT outbox.publish('t', convert_from($1, 'UTF8')::jsonb)",
          [.bytea(bytes)]
        )
        #expect(["22021", "22P05"].contains(error.sqlState), "\(error)")
      }
      let nul = try await client.refusal(publish, [.text("a\0b"), .jsonb("{}")])
      #expect(nul.sqlState == "22021")
      let escaped = try await client.refusal(publish, [.text("t"), .jsonb(#""\u0000""#)])
      #expect(escaped.sqlState == "22P05")
      let broken = try await client.refusal(publish, [.text("t"), .jsonb("{\"a\":")])
      #expect(broken.sqlState == "22P02")
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 0)
    }
  }

  /// What counts is the size of what would be sent, not how well it was compressed where it came from.
  @Test func compressedPayloadOfATableIsMeasuredInFull() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.execute(
        """
        CREATE TABLE own (payload jsonb, metadata jsonb);
        INSERT INTO own SELECT to_jsonb(repeat('x', 5000000)), jsonb_build_object('a', repeat('x', 100000));
        """
      )
      let payload = try await client.refusal("INSERT INTO outbox.event (type, payload) SELECT 't', payload FROM own")
      #expect(payload.message.contains("event_payload_is_at_most_1_mib"))
      let metadata = try await client.refusal(
        "INSERT INTO outbox.event (type, payload, metadata) SELECT 't', '1', metadata FROM own"
      )
      #expect(metadata.message.contains("event_metadata_is_an_object_of_at_most_64_kib"))
    }
  }

  @Test func anyJSONIsAPayloadAndComesOutUnharmed() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      let payloads = [
        "null", "1", "\"\"", "[]", "{}", #"{"🐦": "ä\"\\ \u2028"}"#, "1e300", "123456789012345678901234567890.5",
      ]
      for payload in payloads {
        _ = try await worker.client.rows("SELECT outbox.publish('t', $1)", [.jsonb(payload)])
      }
      let texts = try await worker.drain().flatMap(\.direct).map { String(decoding: $0.event.payload, as: UTF8.self) }
      let stored = try await worker.client.column("SELECT payload::text FROM outbox.event ORDER BY id")
      #expect(texts == stored)
      #expect(texts[5] == "{\"🐦\": \"ä\\\"\\\\ \u{2028}\"}")
    }
  }
}
