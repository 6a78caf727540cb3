import Postgres

/// How a publisher ends a transaction.
enum TransactionEnd {
  case commit, rollBack, prepareAndCommit, prepareAndRollBack

  var commits: Bool { self == .commit || self == .prepareAndCommit }

  /// - Parameter gid: under which it is prepared, if it is.
  func carryOut(_ gid: String, _ connection: Connection) throws(PostgresError) {
    switch self {
    case .commit: try connection.execute("COMMIT")
    case .rollBack: try connection.execute("ROLLBACK")
    case .prepareAndCommit:
      try connection.execute("PREPARE TRANSACTION '\(gid)'")
      try connection.execute("COMMIT PREPARED '\(gid)'")
    case .prepareAndRollBack:
      try connection.execute("PREPARE TRANSACTION '\(gid)'")
      try connection.execute("ROLLBACK PREPARED '\(gid)'")
    }
  }
}
