/// Who holds which access token, who waits for one, and who is to fetch it. One fetch an endpoint at a time; everything that
/// departs meanwhile waits for it. Pure: time is handed in, as time since some fixed moment.
///
/// A token belongs to a version of the endpoint's settings: whoever changes the credential gets a new one.
package struct AccessTokens<Item> {
  package struct Holder: Hashable, Sendable {
    package var endpoint: Int64
    package var version: Int64
    package init(endpoint: Int64, version: Int64) {
      self.endpoint = endpoint
      self.version = version
    }
  }

  package enum Answer: Equatable {
    case use(String)
    /// The item waits, and the caller fetches a token for all that do.
    case fetch
    /// The item waits for a fetch under way.
    case wait
  }

  private struct Entry {
    var token: (text: String, until: Duration)?
    var waiting: [Item] = []
    var isFetching = false
  }
  private var entries: [Holder: Entry] = [:]

  package init() {}

  package mutating func want(_ item: Item, for holder: Holder, at now: Duration) -> Answer {
    if entries[holder] == nil {
      // What an older version had is of no use any more, unless somebody still waits for it.
      entries = entries.filter { $0.key.endpoint != holder.endpoint || $0.value.isFetching }
    }
    var entry = entries.removeValue(forKey: holder) ?? Entry()
    defer { entries[holder] = entry }
    if let token = entry.token, now < token.until { return .use(token.text) }
    entry.token = nil
    entry.waiting.append(item)
    if entry.isFetching { return .wait }
    entry.isFetching = true
    return .fetch
  }

  /// A token was fetched, good until `until`. Returns what waited for it.
  package mutating func granted(_ token: String, to holder: Holder, until: Duration) -> [Item] {
    let waiting = settle(holder)
    entries[holder] = Entry(token: (token, until))
    return waiting
  }

  /// None could be fetched. Returns what waited for it, and now fails.
  package mutating func refused(_ holder: Holder) -> [Item] { settle(holder) }

  /// The endpoint did not accept a token: the next that departs fetches a new one.
  package mutating func rejected(by endpoint: Int64) {
    for holder in entries.keys where holder.endpoint == endpoint { entries[holder]?.token = nil }
  }

  private mutating func settle(_ holder: Holder) -> [Item] {
    guard let entry = entries.removeValue(forKey: holder), entry.isFetching else {
      preconditionFailure("a token arrived that nobody fetches")
    }
    return entry.waiting
  }
}
