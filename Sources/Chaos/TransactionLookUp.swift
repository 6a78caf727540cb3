import Foundation
import Postgres

/// What became of a transaction whose end nobody heard of.
struct TransactionLookUp {
  /// Longer than any fault lasts: by then something is broken that no waiting mends.
  static let patience = Duration.seconds(120)

  /// Under which it may have been prepared.
  var gid: String
  /// Of the application's, where it has left its id.
  var table: String
  var id: Int

  /// Asked until there is an answer. A transaction that is still prepared is rolled back: nobody was told that it is
  /// committed.
  func isCommitted(_ connected: () throws(PostgresError) -> Connection, after cause: PostgresError) throws -> Bool {
    let deadline = ContinuousClock.now + Self.patience
    while true {
      do {
        let connection = try connected()
        if connection.isInTransaction { try connection.execute("ROLLBACK") }
        let prepared = try connection.query("SELECT 1 FROM pg_prepared_xacts WHERE gid = $1", [.text(gid)])
        if prepared.count > 0 { try connection.execute("ROLLBACK PREPARED '\(gid)'") }
        return try connection.query("SELECT 1 FROM \(table) WHERE id = $1", [.int8(Int64(id))]).count > 0
      } catch {
        guard .now < deadline else { throw cause }
        Thread.sleep(forTimeInterval: 0.1)
      }
    }
  }
}
