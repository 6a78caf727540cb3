/// The last so many ids, in bounded memory: the oldest is forgotten when a new one does not fit.
struct RecentIDs {
  private let limit: Int
  private var ids: Set<String> = []
  /// The same ids as a ring; `next` is the place of the oldest once the ring is full.
  private var ring: [String] = []
  private var next = 0

  init(limit: Int) {
    precondition(limit > 0, "RecentIDs: the limit must be positive")
    self.limit = limit
  }

  var count: Int { ids.count }

  func contains(_ id: String) -> Bool {
    ids.contains(bounded(id))
  }

  mutating func insert(_ id: String) {
    let id = bounded(id)
    guard ids.insert(id).inserted else { return }
    if ring.count < limit {
      ring.append(id)
    } else {
      ids.remove(ring[next])
      ring[next] = id
      next = (next + 1) % limit
    }
  }

  /// A client may send an id of any length; what is kept of it is bounded.
  private func bounded(_ id: String) -> String {
    String(decoding: id.utf8.prefix(256), as: UTF8.self)
  }
}
