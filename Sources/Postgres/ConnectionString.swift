import CLibPQ
import Foundation

/// Looks at a connection string before libpq does: libpq's complaints quote what they do not understand, and that may be
/// the password.
package enum ConnectionString {
  /// Throws unless libpq can read it and no part of it looks like a misplaced piece of user name or password.
  package static func check(_ text: String) throws(PostgresError) {
    guard !text.utf8.contains(0) else { throw unreadable("it contains a zero byte") }
    guard text.hasPrefix("postgres://") || text.hasPrefix("postgresql://") || text.contains("=") else {
      // libpq would take it for the name of a database, which the server then quotes.
      guard !text.contains("://"), !text.contains("@") else {
        throw unreadable("it does not begin with postgres:// or postgresql://")
      }
      return
    }
    // A slash in the password ends the host, and the rest of the password begins the database's name.
    if let scheme = text.range(of: "://"), !text[..<scheme.lowerBound].contains("=") {
      let path = text[scheme.upperBound...].prefix { $0 != "?" }.drop { $0 != "/" }
      guard !path.contains("@") else { throw unreadable("there is an @ after the first /") }
    }
    var complaint: UnsafeMutablePointer<CChar>?
    guard let options = PQconninfoParse(text, &complaint) else {
      defer { PQfreemem(complaint) }
      // Up to the first quote it is libpq's wording, after that ours to hide.
      let words = complaint.map { String(cString: $0) } ?? "out of memory"
      throw unreadable(PostgresError.oneLine(String(words.prefix { $0 != "\"" })))
    }
    defer { PQconninfoFree(options) }
    var option = options
    while let keyword = option.pointee.keyword {
      if let value = option.pointee.val { try check(String(cString: keyword), String(cString: value)) }
      option += 1
    }
  }

  private static func check(_ keyword: String, _ value: String) throws(PostgresError) {
    let items = value.split(separator: ",", omittingEmptySubsequences: false)
    switch keyword {
    case "port":
      guard items.allSatisfy({ $0.isEmpty || UInt16($0).map { $0 > 0 } == true }) else {
        throw unreadable("the port is not a number from 1 to 65535")
      }
    case "host":
      // Directories of unix sockets begin with a slash, abstract sockets with an at sign.
      guard items.allSatisfy({ $0.hasPrefix("/") || !$0.dropFirst().contains("@") }) else {
        throw unreadable("the host contains an @")
      }
    case "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
      "tcp_user_timeout":
      guard value.isEmpty || Int32(value.trimmingPrefix(" ")) != nil else {
        throw unreadable("\(keyword) is not a number")
      }
    default: break
    }
  }

  private static func unreadable(_ reason: String) -> PostgresError {
    PostgresError(
      .connection,
      message: "the connection string cannot be read: \(reason)",
      hint: """
        Expected is postgres://user:password@host:port/database or host=… dbname=… user=…; in the first form, \
        characters such as @ / : ? # % in a user name or password are written as %40 %2F %3A %3F %23 %25.
        """
    )
  }
}
