//! JSON → [`ClientRequest`]: strict where it protects, lenient where v2 clients vary.
//!
//! Unknown fields are ignored, and so are `userId`, `roomId` and `timestamp` outside JOIN. null counts as absent. A
//! number must be a JSON number, finite and in range; a text must be a JSON string.

use super::client_message::{BadRequest, ClientMessage, ClientRequest, JoinMessage, Rules};
use super::fields::{MessageField, MessageFields};
use super::{MAX_INTEGER, PROTOCOL};
use crate::domain::{
    ChatText, Dialect, ErrorCode, Fallback, Head, Invalid, KeyHash, MediaTime, MediaUrl, Namespace, Pin, Player,
    PlayerReason, PlayerState, Rate, ResumeToken, RoomId, Username,
};
use crate::hub::delivery::Signal;
use crate::room::{Ask, Basis, Control, OwnerClaim};

/// Decodes one message.
pub fn decode(text: &[u8], rules: &Rules) -> Result<ClientRequest, BadRequest> {
    let mut fields = MessageFields::empty();
    let outcome = read(text, rules, &mut fields);
    outcome.map_err(|Invalid { code, message }| BadRequest {
        code,
        message,
        reference: fields.reference.integer(MAX_INTEGER).ok().flatten(),
        request: known_type(&fields).map_or("", |(name, _)| name),
    })
}

fn read<'a>(text: &'a [u8], rules: &Rules, fields: &mut MessageFields<'a>) -> Result<ClientRequest, Invalid> {
    if text.len() as u64 > rules.limits.message_bytes {
        return Err(Invalid::new(
            ErrorCode::TooBig,
            format!("a message may have {} bytes", rules.limits.message_bytes),
        ));
    }
    let text = std::str::from_utf8(text).map_err(|_| Invalid::new(ErrorCode::BadMessage, "not UTF-8"))?;
    fields.read(text)?;
    let reference = fields.reference.integer(MAX_INTEGER)?;
    let name = fields.kind.must(MessageField::text)?;
    let Some((_, decoder)) = known_type(fields) else {
        return Err(Invalid::new(ErrorCode::UnknownType, format!("no such message: {}", printable(&name))));
    };
    Ok(ClientRequest { reference, message: decoder(fields, rules)? })
}

type Decoder = fn(&MessageFields<'_>, &Rules) -> Result<ClientMessage, Invalid>;

/// The types that a client may send, in the order of the documentation.
const DECODERS: &[(&str, Decoder)] = &[
    ("JOIN", join),
    ("LEAVE", |_, _| Ok(ClientMessage::Leave)),
    ("PING", |f, _| Ok(ClientMessage::Ping { echo: f.timestamp.lenient_number() })),
    ("ALIVE", |_, _| Ok(ClientMessage::Alive)),
    ("UPDATE_USERNAME", rename),
    ("TOGGLE_GUEST_CONTROL", |f, _| Ok(Ask::SetGuestControl { enabled: f.enabled.must(MessageField::flag)? }.into())),
    ("TRANSFER_HOST", |f, _| Ok(Ask::TransferHost { target: f.target_user_id.must(MessageField::user)? }.into())),
    ("KICK", |f, _| Ok(Ask::Kick { target: f.target_user_id.must(MessageField::user)? }.into())),
    ("BAN", |f, _| Ok(Ask::Ban { target: f.target_user_id.must(MessageField::user)? }.into())),
    ("UNBAN", |f, _| Ok(Ask::Unban { target: f.target_user_id.must(MessageField::user)? }.into())),
    ("SET_PIN", set_pin),
    ("PLAY_PAUSE", play_pause),
    ("SEEK", seek),
    ("SET_RATE", |f, _| {
        Ok(Ask::SetRate { rate: Rate::parse(f.rate.must(MessageField::number)?)?, on: basis(f)? }.into())
    }),
    ("READY", ready),
    ("PLAYER", player),
    ("HOST_HEARTBEAT", heartbeat),
    ("POSITION_UPDATE", position_update),
    ("URL_CHANGE", url_change),
    ("REQUEST_SYNC", |_, _| Ok(ClientMessage::RequestSync)),
    ("SYNC_PLAYBACK", sync_playback),
    ("SYNC_RESPONSE", sync_response),
    ("OFFER", offer),
    ("ANSWER", answer),
    ("ICE_CANDIDATE", ice_candidate),
    ("PLAYBACK_ACK", |f, _| signal(f, Signal::PlaybackAck { control: control(f)? })),
    ("CHAT", chat),
    ("CUSTOM", custom),
    ("RAISE_HAND", |f, _| Ok(ClientMessage::RaiseHand { raised: f.raised.flag()?.unwrap_or(true) })),
    ("INVITE_TO_MEMBER", |f, _| {
        let (target, decline) = (f.target_user_id.must(MessageField::user)?, f.decline.flag()?.unwrap_or(false));
        Ok(ClientMessage::Invite { target, decline })
    }),
];

impl ClientMessage {
    /// Every type that a client may send, in the order of the documentation.
    pub const KINDS: &'static [&'static str] = &{
        let mut kinds = [""; DECODERS.len()];
        let mut index = 0;
        while index < kinds.len() {
            kinds[index] = DECODERS[index].0;
            index += 1;
        }
        kinds
    };
}

fn known_type(fields: &MessageFields<'_>) -> Option<&'static (&'static str, Decoder)> {
    let name = fields.kind.text().ok().flatten()?;
    DECODERS.iter().find(|(known, _)| *known == name)
}

/// The client's text, cleaned for an ERROR and for a log line.
fn printable(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '?' };
    name.chars().take(40).map(clean).collect()
}

fn join(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    // v2 clients join without a name, or with an empty or invisible one: the room gives them a name.
    let name = f
        .username
        .text()?
        .filter(|text| text.len() as u64 > rules.limits.username_chars * 4 || Username::is_visible(text));
    let dialect = match f.protocol.integer(MAX_INTEGER)? {
        None | Some(2) => Dialect::V2,
        Some(version) if version == u64::from(PROTOCOL) => Dialect::V3,
        Some(_) => return Err(Invalid::new(ErrorCode::OutOfRange, "`protocol` must be 2 or 3")),
    };
    let viewer = match f.role.filled_text()?.as_deref() {
        None | Some("member") => false,
        Some("viewer") if dialect == Dialect::V3 => true,
        Some("viewer") => return Err(f.role.wrong("takes `protocol` 3")),
        Some(_) => return Err(f.role.wrong("must be `member` or `viewer`")),
    };
    let last_seen = match (f.epoch.integer(MAX_INTEGER)?, f.last_seq.integer(MAX_INTEGER)?) {
        (Some(epoch), Some(seq)) => Some(Head { epoch, seq }),
        _ => None,
    };
    Ok(ClientMessage::Join(JoinMessage {
        room: RoomId::parse(&f.room_id.must(MessageField::text)?)?,
        user: f.user_id.must(MessageField::user)?,
        name: name.map(|text| Username::parse(&text, &rules.limits)).transpose()?,
        pin: f.pin.filled_text()?.map(|text| Pin::parse(&text)).transpose()?,
        dialect,
        token: f.resume_token.filled_text()?.map(|text| ResumeToken::presented(&text)),
        last_seen,
        viewer,
        moves: f.moves.flag()?.unwrap_or(false),
        fallback: f.fallback.filled_text()?.map(|word| Fallback::named(&word)),
        client: f.client_key.filled_text()?.map(|text| KeyHash::of_key("clientKey", &text)).transpose()?,
        claim: OwnerClaim {
            host_key: f.host_key.filled_text()?.map(|text| KeyHash::of_key("hostKey", &text)).transpose()?,
            owner: f.owner.filled_text()?.map(|text| KeyHash::parse(&text)).transpose()?,
        },
    }))
}

fn rename(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    Ok(Ask::Rename { name: Username::parse(&f.username.must(MessageField::text)?, &rules.limits)? }.into())
}

fn set_pin(f: &MessageFields<'_>, _: &Rules) -> Result<ClientMessage, Invalid> {
    // Absent differs from null here: a message that lost its field must not remove the room's PIN.
    Ok(match f.pin.text_or_null()? {
        Some(text) => ClientMessage::SetPin(Pin::parse(&text)?),
        None => Ask::SetPin { pin: None }.into(),
    })
}

fn play_pause(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let position = f.current_time.position(&rules.limits)?;
    Ok(Ask::PlayPause { control: control(f)?, position, true_at: f.event_timestamp.moment()?, on: basis(f)? }.into())
}

fn seek(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let position = f.current_time.must(|field| field.position(&rules.limits))?;
    let resume = f.is_playing.flag()?;
    Ok(Ask::Seek { position, resume, true_at: f.event_timestamp.moment()?, on: basis(f)? }.into())
}

fn ready(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let gate = f.gate_id.count()?;
    Ok(Ask::Ready { gate, target: f.target_time.position(&rules.limits)?, film: f.film.count()? }.into())
}

fn player(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let player = Player {
        state: PlayerState::parse(&f.state.must(MessageField::text)?)?,
        reason: f.reason.filled_text()?.map(|text| PlayerReason::parse(&text)).transpose()?,
        // Players report 0 before they know the length.
        duration: f.duration.position(&rules.limits)?.filter(|duration| *duration > MediaTime::ZERO),
    };
    Ok(Ask::Player { player, film: f.film.count()? }.into())
}

/// The room as the sender saw it when it decided.
fn basis(f: &MessageFields<'_>) -> Result<Basis, Invalid> {
    Ok(Basis { film: f.film.count()?, gate: f.gate.count()? })
}

fn heartbeat(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let (position, playing) = standing(f, rules)?;
    Ok(ClientMessage::Heartbeat { position, playing, true_at: f.event_timestamp.moment()? })
}

fn position_update(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let (position, playing) = standing(f, rules)?;
    Ok(ClientMessage::Position { position, playing })
}

fn url_change(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let position = f.current_time.position_in_millis(&rules.limits)?.unwrap_or(MediaTime::ZERO);
    let url = MediaUrl::parse(&f.url.must(MessageField::text)?, &rules.urls, &rules.limits)?;
    Ok(Ask::SetUrl { url, position }.into())
}

fn sync_playback(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let (position, playing) = standing(f, rules)?;
    Ok(Ask::Adopt { position, playing, url: optional_url(f, rules)? }.into())
}

fn sync_response(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let (position, playing) = standing(f, rules)?;
    signal(f, Signal::SyncResponse { position, playing, url: optional_url(f, rules)? })
}

fn offer(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    signal(f, Signal::Offer { offer: f.offer.must(|field| field.json(rules.limits.signal_bytes))? })
}

fn answer(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    signal(f, Signal::Answer { answer: f.answer.must(|field| field.json(rules.limits.signal_bytes))? })
}

fn ice_candidate(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    // null: there are no more candidates.
    signal(
        f,
        Signal::IceCandidate { candidate: f.candidate.must(|field| field.json_or_null(rules.limits.signal_bytes))? },
    )
}

fn chat(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    Ok(Ask::Chat { text: ChatText::parse(&f.text.must(MessageField::text)?, &rules.limits)? }.into())
}

fn custom(f: &MessageFields<'_>, rules: &Rules) -> Result<ClientMessage, Invalid> {
    let namespace = Namespace::parse(&f.namespace.must(MessageField::text)?)?;
    let payload = f.payload.must(|field| field.json_or_null(rules.limits.custom_bytes))?;
    Ok(match f.to.user()? {
        Some(to) => ClientMessage::Signal { to, signal: Signal::Custom { namespace, payload } },
        None => Ask::Custom { namespace, payload }.into(),
    })
}

fn control(f: &MessageFields<'_>) -> Result<Control, Invalid> {
    match &*f.control.must(MessageField::text)? {
        "play" => Ok(Control::Play),
        "pause" => Ok(Control::Pause),
        _ => Err(f.control.wrong("must be `play` or `pause`")),
    }
}

/// Position and state of the sender's player.
fn standing(f: &MessageFields<'_>, rules: &Rules) -> Result<(MediaTime, bool), Invalid> {
    Ok((f.current_time.must(|field| field.position(&rules.limits))?, f.is_playing.must(MessageField::flag)?))
}

fn optional_url(f: &MessageFields<'_>, rules: &Rules) -> Result<Option<MediaUrl>, Invalid> {
    f.url.filled_text()?.map(|text| MediaUrl::parse(&text, &rules.urls, &rules.limits)).transpose()
}

fn signal(f: &MessageFields<'_>, signal: Signal) -> Result<ClientMessage, Invalid> {
    Ok(ClientMessage::Signal { to: f.to.must(MessageField::user)?, signal })
}

impl From<Ask> for ClientMessage {
    fn from(ask: Ask) -> Self {
        Self::Ask(ask)
    }
}
