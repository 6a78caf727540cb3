import Testing

@testable import Postgres

@Suite struct RemedyTests {
  private static let table: [(PostgresError.Remedy, [String])] = [
    (.retry, ["40001", "40P01", "55P03", "57014", "26000", "42P05"]),
    (.retry, ["53000", "53100", "53200", "53400", "58000", "58030", "XX000", "XX001", "XX002"]),
    (.reconnect, ["57P01", "57P02", "57P03", "57P05", "25006", "25P03", "53300"]),
    (.reconnect, ["08000", "08001", "08003", "08004", "08006", "08007", "08P01"]),
    (.giveUp, ["0A000", "22P02", "22021", "23502", "23503", "23505", "23514", "25001", "25P01", "25P02"]),
    (.giveUp, ["28000", "28P01", "3D000", "3F000", "42501", "42601", "42703", "42883", "42P01", "54000"]),
    (.giveUp, ["57000", "57P04", "P0001", "P0002", "OBX01", "OBX02", "", "?"]),
  ]

  @Test func remedyOfEachSQLState() {
    for (remedy, states) in Self.table {
      for state in states {
        #expect(PostgresError(.server, sqlState: state, message: "").remedy == remedy, "\(state)")
      }
    }
  }

  @Test func stalePlansAreRetriedAndMissingFeaturesNot() {
    let stale = PostgresError(.server, sqlState: "0A000", message: "", routine: "RevalidateCachedQuery")
    #expect(stale.remedy == .retry)
    #expect(PostgresError(.server, sqlState: "0A000", message: "", routine: "transformStmt").remedy == .giveUp)
  }

  @Test func aBrokenConnectionIsReplacedWhateverTheState() {
    for state in ["", "57P01", "23505", "40001"] {
      #expect(PostgresError(.connection, sqlState: state, message: "").remedy == .reconnect)
    }
    #expect(PostgresError(.decoding, message: "").remedy == .giveUp)
  }
}
