import Foundation
import OutboxStore
import Postgres

extension Stage {
  /// Compares all accounts, prints what came of it, and returns whether they agree.
  func report(_ shop: ShopRecord.State, killedAt: ContinuousClock.Instant, _ findings: [Finding]) async throws -> Bool {
    let (ledger, retried, differences) = try await database.withConnection { connection in
      let record = OutboxRecord(connection)
      let accounts = try endpoints.all.map { try account($0, shop, record) }
      let ledger = Ledger(
        published: shop.published.map { ($0.id, $0.key) },
        rolledBack: shop.rolledBack,
        accounts: accounts,
        killedAt: killedAt
      )
      var differences = ledger.differences()
      let altered = try record.altered(shop.published, bodies: endpoints.bodies.all)
      if let one = altered.first {
        differences.append("\(altered.count) bodies do not carry the payload that was published: \(one)")
      }
      if try !record.holdsExactly(Set(shop.published.map(\.id))) {
        differences.append("the log, the shop's rows and the shop's own account do not hold the same events")
      }
      return (ledger, try endpoints.all.map { try record.retried(to: $0.id) }, differences)
    }
    let conserved = findings.contains { $0.finding == "conservation" && $0.severity == .ok }
    let all = differences + (conserved ? [] : ["the reconciler could not prove conservation"])
    let summary = Summary(ledger: ledger, transactions: shop.transactions, retried: retried)
    screen.say()
    screen.say(summary.totals)
    screen.say()
    screen.say(summary.perEndpoint)
    screen.say()
    try await showDeadLetters()
    screen.say("What the reconciler says (martlet reconcile):")
    screen.say()
    for finding in findings { screen.say(finding.forPeople) }
    screen.say()
    if all.isEmpty {
      screen.say(
        "All accounts agree: the shop's, the receivers' and the database's. Every request was signed, and every"
      )
      screen.say("body carried the payload that was published.")
    } else {
      screen.say("The accounts do NOT agree:")
      for difference in all { screen.say("  - \(difference)") }
    }
    return all.isEmpty
  }

  private func account(_ endpoint: Endpoints.Entry, _ shop: ShopRecord.State, _ record: OutboxRecord) throws
    -> Ledger.Account
  {
    let subscribed = shop.published.filter { endpoint.types == "*" || endpoint.types == $0.event.type }
    return Ledger.Account(
      target: endpoint.target,
      subscribed: Set(subscribed.map(\.id)),
      arrivals: endpoint.inbox.arrivals,
      refusedCount: endpoint.inbox.refusedCount,
      delivered: try record.delivered(to: endpoint.id),
      dead: try record.dead(of: endpoint.id),
      waiting: try record.waiting(for: endpoint.id)
    )
  }

  private func showDeadLetters() async throws {
    screen.say("What an operator would type to see what was given up, and why:")
    let queries = [
      """
      SELECT endpoint_id, reason, count(*), max(attempts) AS tries, max(last_error) AS last_error
      FROM outbox.dead_letter GROUP BY 1, 2 ORDER BY 1;
      """,
      """
      SELECT id, url, type, left(payload::text, 30) AS payload
      FROM outbox.dead_letter ORDER BY id DESC LIMIT 3;
      """,
    ]
    for query in queries {
      let (columns, rows) = try await database.withConnection { try $0.queryText(query) }
      screen.say()
      for line in query.split(separator: "\n") { screen.say("  \(line)") }
      screen.say()
      for line in SQLTable(columns: columns, rows: rows).description.split(separator: "\n") { screen.say("  \(line)") }
    }
    screen.say()
    screen.say(
      "Once partner is up again, this sends all of it: SELECT outbox.redrive_where(endpoint => \(endpoints.id(.partner)));"
    )
    screen.say()
  }
}
