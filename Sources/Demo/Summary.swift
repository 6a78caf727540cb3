import OutboxStore

/// The numbers at the end, in words for somebody who sees Martlet for the first time.
struct Summary {
  var ledger: Ledger
  var transactions: Int
  /// Per account of the ledger: deliveries that took more than one try.
  var retried: [Int]

  var lost: Int { ledger.accounts.reduce(0) { $0 + $1.lost.count } }

  var totals: String {
    let accounts = ledger.accounts
    let duplicates = accounts.map { ledger.duplicates($0) }
    let doubled = duplicates.reduce(0) { $0 + $1.count }
    let aroundKill = duplicates.reduce(0) { $0 + $1.aroundKill }
    let received = accounts.reduce(into: 0) { sum, account in
      sum += Set(account.arrivals.map(\.id)).intersection(ledger.rolledBack).count
    }
    let dead = accounts.filter { !$0.dead.isEmpty }.map {
      "\($0.dead.count) for \($0.target.name) (\($0.target.trouble))"
    }
    let misordered = accounts.filter { $0.target == .warehouse }.reduce(0) { $0 + ledger.outOfOrder($1.arrivals).count }
    let explanation =
      doubled == 0
      ? "no event arrived twice"
      : "arrived twice with the same webhook-id"
        + (doubled == aroundKill
          ? ": in flight when the dispatcher was killed" : ", \(aroundKill) of them around the kill")
    let lines: [(String, Int, String)] = [
      ("published", ledger.published.count, "events, committed with their orders in \(transactions) transactions"),
      (
        "rolled back", ledger.rolledBack.count,
        "events; \(received == 0 ? "none" : "\(received)") of them arrived anywhere"
      ),
      ("delivered", accounts.reduce(0) { $0 + $1.delivered.count }, "to the endpoints that can be reached"),
      ("retried", retried.reduce(0, +), "of these took more than one try"),
      ("dead-lettered", accounts.reduce(0) { $0 + $1.dead.count }, dead.joined(separator: ", ")),
      ("duplicates", doubled, explanation),
      ("out of order", misordered, "for warehouse, which asked for order"),
      ("lost", lost, lost == 0 ? "every event is accounted for at every endpoint" : "see below"),
    ]
    return lines.map { name, count, words in
      "  \(name.rightPadded(13)) \("\(count)".leftPadded(6))  \(words)".replacing(#/ +$/#, with: "")
    }.joined(separator: "\n")
  }

  var perEndpoint: String {
    let header = [
      "endpoint", "events", "delivered", "retried", "dead", "waiting", "duplicates", "out of order", "lost",
    ]
    let rows = zip(ledger.accounts, retried).map { account, retried in
      let misordered = account.target == .warehouse ? "\(ledger.outOfOrder(account.arrivals).count)" : "-"
      let expected = account.target == .legacy ? account.dead.count + account.waiting.count : account.subscribed.count
      return [
        account.target.name, "\(expected)", "\(account.delivered.count)", "\(retried)", "\(account.dead.count)",
        "\(account.waiting.count)", "\(ledger.duplicates(account).count)", misordered, "\(account.lost.count)",
      ]
    }
    return ([header] + rows).map { row in
      "  " + row[0].rightPadded(9)
        + zip(header, row).dropFirst().map { $1.leftPadded($0.count + 2) }.joined()
    }.joined(separator: "\n")
  }
}

extension Finding {
  /// What, and below it the details.
  var forPeople: String {
    "  \(severity.rawValue.uppercased().rightPadded(9))\(finding): \(subject)\n"
      + detail.wrapped(at: 85).map { String(repeating: " ", count: 11) + $0 }.joined(separator: "\n")
  }
}

extension String {
  /// Lines of at most `width` characters, as far as words allow.
  func wrapped(at width: Int) -> [String] {
    split(separator: " ").reduce(into: [""]) { lines, word in
      let last = lines[lines.count - 1]
      if last.isEmpty {
        lines[lines.count - 1] = String(word)
      } else if last.count + 1 + word.count <= width {
        lines[lines.count - 1] += " \(word)"
      } else {
        lines.append(String(word))
      }
    }
  }
}
