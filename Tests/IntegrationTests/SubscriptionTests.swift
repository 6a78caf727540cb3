import Foundation
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

/// Who gets what, over real HTTP: types, tenants and filters.
@Suite struct SubscriptionTests {
  @Test func typesTenantsAndFiltersDecideWhoReceives() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let endpoints: [(path: String, types: String, options: String, numbers: [Int])] = [
      ("/all", "{*}", "", [1, 2, 3, 4, 5]),
      ("/exact", "{order.created}", "", [1, 2]),
      ("/prefix", "{order.*}", "", [1, 2, 3, 4]),
      ("/deep", "{order.item.*}", "", [4]),
      ("/twice", "{*, order.*, order.created}", "", [1, 2, 3, 4, 5]),
      ("/tenant", "{*}", "tenant => 'acme'", [6]),
      ("/predicate", "{*}", "filter => '$.payload.n > 1 && $.metadata.region == \"eu\"'", [2, 3]),
      ("/path", "{order.*}", "filter => '$.payload ? (@.n < 3)'", [1, 2]),
      ("/fails", "{*}", "filter => 'strict $.payload.total > 1'", []),
      ("/ordered", "{*}", "ordered => true, filter => '$.key == \"k\"'", [3, 4]),
      ("/disabled", "{*}", "", []),
    ]
    for endpoint in endpoints {
      let id = try await database.addEndpoint(
        listener.url(endpoint.path),
        types: endpoint.types,
        options: endpoint.options
      )
      if endpoint.path == "/disabled" { try await database.execute("SELECT outbox.disable(\(id))") }
    }
    try await withDispatcher(database) { _ in
      try await database.execute(
        """
        INSERT INTO outbox.event (type, tenant, key, payload, metadata) VALUES
        ('order.created', '', NULL, '{"n": 1}', '{"region": "eu"}'),
        ('order.created', '', NULL, '{"n": 2}', '{"region": "eu"}'),
        ('order.paid', '', 'k', '{"n": 3}', '{"region": "eu"}'),
        ('order.item.added', '', 'k', '{"n": 4}', '{"region": "us"}'),
        ('user.created', '', NULL, '{"n": 5}', '{}'),
        ('user.created', 'acme', NULL, '{"n": 6}', '{}')
        """
      )
      try await eventually("all is delivered") {
        let expected = endpoints.map(\.numbers.count).reduce(0, +)
        return listener.accepted2xx >= expected ? try await database.isSettled() : false
      }
    }
    for endpoint in endpoints {
      #expect(listener.accepted(endpoint.path).compactMap(\.n).sorted() == endpoint.numbers, "\(endpoint.path)")
    }
    #expect(try await database.missing() == 0)
    #expect(try await database.int("SELECT failures FROM outbox.filter_failure") == 5)
  }

  /// While one tenant's filter takes long, the others' events arrive, and the endpoint is disabled by itself. (One that takes
  /// for ever is ended by the intake's timeout: SlowFilterTests.)
  @Test func filterThatTakesTooLongStopsNobodyElse() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url("/good"))
    _ = try await database.addEndpoint(
      listener.url("/bad"),
      options: "filter => '$.payload.a[*] ? (exists($.payload.a[*] ? (@ < 0)))'"
    )
    try await withDispatcher(database) { _ in
      try await database.publish(5)
      try await database.execute(
        """
        INSERT INTO outbox.event (type, payload)
        SELECT 'large', jsonb_build_object('n', n, 'a', jsonb_agg(i))
        FROM generate_series(6, 9) n, generate_series(1, 5000) i GROUP BY n
        """
      )
      try await database.publish(5, first: 10)
      try await eventually("all have arrived") { Set(listener.accepted("/good").map(\.id)).count == 14 }
    }
    #expect(Set(listener.accepted("/good").compactMap(\.n)) == Set(1...14))
    #expect(listener.accepted("/bad").isEmpty)
    #expect(
      try await database.rows("SELECT disabled_because FROM outbox.endpoint WHERE state = 'disabled'")
        .first?[0]?.contains("filter takes too long") == true
    )
  }

  @Test func deduplicatedEventArrivesOnce() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    try await withDispatcher(database) { _ in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<8 {
          group.addTask {
            let session = try await database.newSession()
            for key in 0..<10 {
              try await session.withConnection {
                try $0.execute("SELECT outbox.publish('t', '{\"n\": \(number)}', dedup_key => 'key \(key)')")
              }
            }
          }
        }
        try await group.waitForAll()
      }
      try await eventually("all is delivered") {
        listener.accepted().count >= 10 ? try await database.isSettled() : false
      }
    }
    #expect(Set(listener.accepted().map(\.id)).count == 10)
    #expect(try await database.int("SELECT count(*) FROM outbox.event") == 10)
  }
}

extension Listener {
  fileprivate var accepted2xx: Int { arrivals.count { (200..<300).contains($0.answered) } }
}
