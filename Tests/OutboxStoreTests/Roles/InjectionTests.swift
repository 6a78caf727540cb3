import Foundation
import Testing

/// What tenants, applications and receivers write is data wherever it passes: in tenants, keys, metadata, answers and reasons.
@Suite struct InjectionTests {
  private static let hostile = [
    "'; DROP TABLE outbox.event; --", "\"; DROP TABLE outbox.event; --", "$$; DROP TABLE outbox.event; $$", "%s%I%L%",
    "{a,b}",
    "\\'; DROP TABLE outbox.event; --", "NULL", "a/b", "9/9", "'||(SELECT 'x')||'", "ä\u{301}\u{202E}",
  ]

  @Test func textsThatLookLikeSQLAreData() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      for text in Self.hostile {
        let endpoint = Int64(
          try await client.value(
            "SELECT outbox.add_endpoint('https://example.com/' || $2, tenant => $1, ordered => true, on_dead_letter => 'hold', rate_limit => 1000)",
            [.text(text), .text("x")]
          )!
        )!
        for _ in 1...2 {
          _ = try await client.value(
            "SELECT outbox.publish('t', to_jsonb($1), $1, $1, jsonb_build_object($1, $1), dedup_key => $1 || random())",
            [.text(text)]
          )
        }
        _ = try await worker.drain()
        let claimed = try await worker.claim([endpoint])
        #expect(claimed.map(\.event.key) == [text] && claimed.map(\.event.tenant) == [text])
        var outcome = claimed[0].outcome(.failed, reason: "exhausted")
        outcome.error = text
        outcome.response = text
        try await worker.record([outcome])
        _ = try await client.rows(
          "SELECT * FROM outbox.explain($1::text::uuid)",
          [.text(claimed[0].event.id.uuidString)]
        )
        #expect(
          try await client.value("SELECT outbox.redrive_where(reason => $1)::text", [.text(text)]) == "0"
        )
        let letter = try await client.rows(
          "SELECT key, tenant, payload #>> '{}', last_error FROM outbox.dead_letter WHERE seq IS NOT NULL"
        )
        #expect(letter == [[text, text, text, text]])
        _ = try await client.rows("SELECT * FROM outbox.reconcile()")
        _ = try await client.rows("SELECT outbox.discard(id) FROM outbox.dead_letter WHERE seq IS NOT NULL")
        #expect(try await client.int("SELECT missing FROM outbox.conservation(now() - interval '1 hour')") == 0)
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 2 * Self.hostile.count)
    }
  }
}
