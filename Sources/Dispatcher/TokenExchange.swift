import Foundation
import HTTPDelivery

extension OAuth2Client {
  /// Tokens are a few hundred bytes, or a few thousand if they are signed claims.
  private static let tokenLimitBytes = 64 * 1024

  /// Asks for a token. The client authenticates by HTTP Basic, which every server must accept (section 2.3.1).
  func tokenRequest(tag: UInt64, timeout: Duration) -> HTTPRequest {
    let form = [("grant_type", "client_credentials"), ("scope", scope), ("audience", audience)]
      .compactMap { name, value in value.map { "\(name)=\(Self.formEncoded($0))" } }
      .joined(separator: "&")
    let pair = Self.formEncoded(clientID) + ":" + Self.formEncoded(clientSecret)
    var request = HTTPRequest(
      tag: tag,
      url: tokenURL,
      headers: [
        "Content-Type: application/x-www-form-urlencoded", "Accept: application/json",
        "Authorization: Basic \(Data(pair.utf8).base64EncodedString())",
      ],
      body: RequestBody(form.utf8),
      timeout: timeout
    )
    request.keptBodyBytes = Self.tokenLimitBytes
    return request
  }

  /// `application/x-www-form-urlencoded`, with %20 for the space, which is understood everywhere.
  static func formEncoded(_ text: String) -> String {
    let unreserved = CharacterSet(charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    // Nil only for strings that are not valid Unicode, which Swift's cannot be.
    return text.addingPercentEncoding(withAllowedCharacters: unreserved) ?? ""
  }
}

/// What a token endpoint answered.
package enum TokenAnswer {
  /// `lifetime`: how long it may be used, from the time it was asked for.
  case token(String, lifetime: Duration)
  case refused(HTTPFailure)

  /// Used for so long if the server does not say (RFC 6749, section 5.1, only recommends that it does).
  private static let usualLifetime: Duration = .seconds(300)

  package init(_ completion: HTTPCompletion) {
    switch completion.outcome {
    case .failure(let failure) where failure.kind == .aborted: self = .refused(failure)
    case .failure(let failure): self = Self.refused("\(failure)")
    case .response(let status):
      let isGranted = (200..<300).contains(status)
      let answer = Answer(isGranted ? completion.keptBody : completion.excerpt)
      guard isGranted else {
        self = Self.refused("the token endpoint answered \(status)" + (answer?.error.map { " (\($0.forLog))" } ?? ""))
        return
      }
      guard let token = answer?.accessToken, Self.isUsable(token) else {
        self = Self.refused("the token endpoint answered \(status) without a usable access_token")
        return
      }
      guard (answer?.tokenType ?? "bearer").lowercased() == "bearer" else {
        self = Self.refused("the token endpoint gave a token of a type other than bearer")
        return
      }
      let lifetime = answer?.expiresIn.map { Duration.seconds(min(max($0.seconds, 0), 86_400)) } ?? Self.usualLifetime
      // On its way a token must not grow too old.
      self = .token(token, lifetime: lifetime - min(.seconds(30), lifetime / 10))
    }
  }

  /// Visible ASCII (RFC 6749, appendix A.12), of a size that servers take in a header.
  private static func isUsable(_ token: String) -> Bool {
    (1...16_384).contains(token.utf8.count) && token.utf8.allSatisfy { (0x21...0x7E).contains($0) }
  }

  private static func refused(_ why: String) -> TokenAnswer {
    .refused(HTTPFailure(.invalidRequest, "no access token: \(why)"))
  }

  private struct Answer: Decodable {
    var accessToken: String?
    var tokenType: String?
    var expiresIn: Seconds?
    var error: String?

    init?(_ body: [UInt8]) {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      guard let answer = try? decoder.decode(Self.self, from: Data(body)) else { return nil }
      self = answer
    }
  }

  /// A number, or, as some servers have it, a number in a string.
  private struct Seconds: Decodable {
    var seconds: Double
    init(from decoder: any Decoder) throws {
      let value = try decoder.singleValueContainer()
      let number = try (try? value.decode(Double.self)) ?? Double(value.decode(String.self))
      guard let number, number.isFinite else {
        throw DecodingError.dataCorruptedError(in: value, debugDescription: "not a number of seconds")
      }
      seconds = number
    }
  }
}

extension String {
  /// An error code of RFC 6749 is printable ASCII; anything else has no business in a log.
  fileprivate var forLog: String { String(prefix(64).filter { $0.isASCII && $0 >= " " && $0 <= "~" }) }
}
