import OutboxStore
import Postgres
import Testing

/// The wait for news that the server does for an idle dispatcher.
struct WatchTests {
  @Test func answersWithAnotherSnapshotOnceSomebodyHasCommitted() async throws {
    try await withOwnServer(["autovacuum": "off"]) { database in
      let (client, publisher) = (database.client(), database.client())
      let seen = try await client.store { try $0.snapshot() }
      let same = try await client.store { try $0.watch(seen, every: .milliseconds(1), upTo: .milliseconds(20)) }
      #expect(same == seen)
      async let news = client.store { try $0.watch(seen, every: .milliseconds(2), upTo: .seconds(60)) }
      try await eventually("the server watches") {
        try await publisher.int(
          "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%outbox.watch%' AND wait_event = 'PgSleep'"
        ) == 1
      }
      try await publisher.publish(1)
      #expect(try await news != seen)
      #expect(try await client.store { try $0.watch(nil, every: .milliseconds(1), upTo: .seconds(60)) } != seen)
    }
  }
}
