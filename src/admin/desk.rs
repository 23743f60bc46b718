//! What an operator has done: letters listed, shown, replayed and dropped, the journal replayed. The same commands work on a
//! running daemon, where they come over the admin port, and on a directory that no daemon has.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::command::{
    Answer, Command, DropRequest, Dropped, Group, LetterView, ListRequest, Listed, Refused,
    ReplayJournalRequest, ReplayLettersRequest, Replayed, ShelfName, ShowRequest, Which,
};
use crate::feed::Feed;
use crate::pipeline::{
    self, LaneState, LaneStatus, Letter, Progress, ReplayError, Selection, Shelf, Stretch, Target,
    Turn, Way, trace_named,
};
use crate::span::otlp::json;
use crate::support::{base64, clock, moment, rfc3339};

/// Letters that are listed when nobody says how many.
const LIST_DEFAULT: usize = 20;
/// Letters that are listed at most: what a person reads, and an answer of bounded size.
const LIST_MAX: usize = 1000;
/// Groups that are listed at most. Reasons come from backends, which may make one up for each item.
const GROUPS_MAX: usize = 1000;
/// How often a replay says how far it is.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(1);

/// Where commands are carried out.
#[derive(Debug)]
pub struct Desk {
    dead_letters: Shelf,
    quarantine: Shelf,
    site: Option<Site>,
}

/// What replays need beside the letters.
#[derive(Debug)]
pub struct Site {
    /// The journal.
    pub feed: Feed,
    /// The lanes, and the ways into them.
    pub lanes: Vec<(Arc<LaneStatus>, Way)>,
}

impl Desk {
    /// A desk over both shelves, and a site where replays are wanted.
    pub fn new(dead_letters: Shelf, quarantine: Shelf, site: Option<Site>) -> Self {
        Self { dead_letters, quarantine, site }
    }

    /// What sinks rejected.
    pub fn dead_letters(&self) -> &Shelf {
        &self.dead_letters
    }

    /// What could not be understood.
    pub fn quarantine(&self) -> &Shelf {
        &self.quarantine
    }

    /// Carries out a command. `progress` follows a replay. Dropped, it stops after what is at a sink right now.
    pub async fn run(
        &self,
        command: Command,
        progress: &watch::Sender<Progress>,
    ) -> Result<Answer, Refused> {
        match command {
            Command::List(request) => self.list(request).await.map(Answer::Listed),
            Command::Show(request) => self.show(request).await.map(Box::new).map(Answer::Letter),
            Command::Drop(request) => self.give_up(request).await.map(Answer::Dropped),
            Command::ReplayLetters(request) => {
                self.replay_letters(request, progress).await.map(Answer::Replayed)
            }
            Command::ReplayJournal(request) => {
                self.replay_journal(request, progress).await.map(Answer::Replayed)
            }
        }
    }

    /// What keeps sinks from taking more.
    pub fn problems(&self) -> Vec<String> {
        let lanes = self.site.iter().flat_map(|site| &site.lanes);
        let troubled = lanes.filter_map(|(status, _)| match status.state() {
            (LaneState::Running | LaneState::Drained, _) => None,
            (state, problem) => {
                let problem = problem.unwrap_or_default();
                Some(format!("sink {} is {}: {problem}", status.sink, state.as_str()))
            }
        });
        troubled.collect()
    }

    fn shelf(&self, name: ShelfName) -> &Shelf {
        match name {
            ShelfName::DeadLetters => &self.dead_letters,
            ShelfName::Quarantine => &self.quarantine,
        }
    }

    async fn list(&self, request: ListRequest) -> Result<Listed, Refused> {
        let selection = request.which.selection()?;
        let limit = request.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
        let letters = self.shelf(request.which.shelf).clone();
        off_thread(move || {
            let mut listing = Listing::new(limit);
            for letter in letters.letters()? {
                let letter = letter?;
                if selection.takes(&letter) {
                    listing.add(&letter);
                }
            }
            Ok(listing.listed())
        })
        .await
    }

    async fn show(&self, request: ShowRequest) -> Result<LetterView, Refused> {
        let letters = self.shelf(request.shelf).clone();
        let letter = off_thread(move || letters.letter(request.id)).await?;
        let letter = letter.ok_or(Refused::NoLetter(request.id))?;
        let mut view = LetterView::of(&letter);
        if request.with_answer {
            view.answer = Some(letter.aside.answer.clone());
        }
        if request.with_payload {
            (view.payload, view.payload_base64) = payload(&letter);
        }
        Ok(view)
    }

    async fn give_up(&self, request: DropRequest) -> Result<Dropped, Refused> {
        let selection = request.which.selection()?;
        if selection == Selection::default() && !request.all {
            return Err(Refused::Mistake(
                "say which letters, or that all of them are meant (--all)".to_owned(),
            ));
        }
        let letters = self.shelf(request.which.shelf);
        let turn = turn_at(letters)?;
        Ok(Dropped { items: pipeline::drop_letters(letters, &turn, &selection).await? })
    }

    async fn replay_letters(
        &self,
        request: ReplayLettersRequest,
        progress: &watch::Sender<Progress>,
    ) -> Result<Replayed, Refused> {
        let selection = request.which.selection()?;
        let letters = self.shelf(request.which.shelf);
        let turn = turn_at(letters)?;
        if request.which.shelf == ShelfName::Quarantine {
            let intake = self.site()?.feed.intake();
            pipeline::receive_letters(letters, &turn, &selection, &intake, progress).await?;
            return Ok(Replayed { progress: progress.borrow().clone(), census: None });
        }
        // Sinks at once, so that one that is down keeps no other waiting.
        let mut ways = Vec::new();
        for sink in pipeline::sinks_of(letters, &selection).await? {
            let target = match &request.to_sink {
                Some(other) if *other != sink => Target::Other,
                _ => Target::Own,
            };
            let way = self.lane(request.to_sink.as_ref().unwrap_or(&sink))?.1.clone();
            ways.push((Selection { sink: Some(sink), ..selection.clone() }, way, target));
        }
        let replays = ways.iter().map(|(selection, way, target)| {
            pipeline::replay_letters(letters, &turn, selection, (way, *target), progress)
        });
        for ended in join_all(replays).await {
            ended?;
        }
        Ok(Replayed { progress: progress.borrow().clone(), census: None })
    }

    async fn replay_journal(
        &self,
        request: ReplayJournalRequest,
        progress: &watch::Sender<Progress>,
    ) -> Result<Replayed, Refused> {
        let (status, way) = self.lane(&request.sink)?;
        let stretch = request.stretch()?;
        let journal = self.site()?.feed.journal();
        // What comes after it is pending, and the lane delivers it anyway.
        let until = status.cursor().mark.position;
        let census = pipeline::count(journal, stretch, until).await?;
        if !request.dry_run {
            pipeline::replay_journal(journal, stretch, until, way, progress).await?;
        }
        Ok(Replayed { progress: progress.borrow().clone(), census: Some(census) })
    }

    fn site(&self) -> Result<&Site, Refused> {
        self.site.as_ref().ok_or_else(|| Refused::Failed("nothing can be replayed here".to_owned()))
    }

    fn lane(&self, sink: &str) -> Result<&(Arc<LaneStatus>, Way), Refused> {
        let lanes = &self.site()?.lanes;
        lanes.iter().find(|(status, _)| status.sink == sink).ok_or_else(|| {
            let known: Vec<_> = lanes.iter().map(|(status, _)| status.sink.as_str()).collect();
            Refused::Mistake(format!("there is no sink {sink:?}; there are: {}", known.join(", ")))
        })
    }
}

impl From<ReplayError> for Refused {
    fn from(error: ReplayError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn turn_at(shelf: &Shelf) -> Result<Turn, Refused> {
    shelf.turn().ok_or(Refused::Busy)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |problem: &dyn std::fmt::Display| Refused::Failed(problem.to_string());
    done.map_err(|problem| failed(&problem))?.map_err(|problem| failed(&problem))
}

impl Which {
    fn selection(&self) -> Result<Selection, Refused> {
        Ok(Selection {
            ids: self.ids.clone(),
            sink: self.sink.clone(),
            reason: self.reason.clone(),
            trace: self.trace.as_deref().map(trace_named),
            from_ns: time(self.from.as_deref())?,
            to_ns: time(self.to.as_deref())?,
        })
    }
}

impl ReplayJournalRequest {
    fn stretch(&self) -> Result<Stretch, Refused> {
        Ok(Stretch {
            from_ns: time(self.from.as_deref())?,
            to_ns: time(self.to.as_deref())?,
            trace: self.trace.as_deref().map(trace_named),
        })
    }
}

fn time(text: Option<&str>) -> Result<Option<u64>, Refused> {
    let read = text.map(|text| moment::read(text, clock::unix_now_ns())).transpose();
    read.map_err(|problem| Refused::Mistake(problem.to_string()))
}

/// Gathers letters on the way through a shelf.
struct Listing {
    limit: usize,
    listed: Listed,
    groups: BTreeMap<(String, String), GroupFigures>,
}

#[derive(Default)]
struct GroupFigures {
    items: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Listing {
    fn new(limit: usize) -> Self {
        Self { limit, listed: Listed::default(), groups: BTreeMap::new() }
    }

    fn add(&mut self, letter: &Letter) {
        self.listed.letters += 1;
        self.listed.items += letter.items;
        let aside = &letter.aside;
        let key = (aside.sink.clone(), aside.reason.clone());
        if self.groups.contains_key(&key) || self.groups.len() < GROUPS_MAX {
            let group = self.groups.entry(key).or_default();
            if group.items == 0 {
                group.first_ns = aside.at_ns;
            }
            group.items += letter.items;
            group.last_ns = aside.at_ns;
        }
        if self.limit > 0 {
            self.listed.newest.push(LetterView::of(letter));
        }
        // Twice as many, so that not each one moves all others.
        if 2 * self.limit < self.listed.newest.len() {
            self.let_older_go();
        }
    }

    fn let_older_go(&mut self) {
        let newest = &mut self.listed.newest;
        newest.drain(..newest.len().saturating_sub(self.limit));
    }

    fn listed(mut self) -> Listed {
        self.let_older_go();
        let groups = self.groups.into_iter().map(|((sink, reason), figures)| Group {
            sink,
            reason,
            items: figures.items,
            first: time_text(figures.first_ns),
            last: time_text(figures.last_ns),
        });
        self.listed.groups = groups.collect();
        self.listed.groups.sort_by_key(|group| std::cmp::Reverse(group.items));
        self.listed
    }
}

impl LetterView {
    fn of(letter: &Letter) -> Self {
        Self {
            id: letter.id,
            sink: letter.aside.sink.clone(),
            reason: letter.aside.reason.clone(),
            at: time_text(letter.aside.at_ns),
            received_at: time_text(letter.envelope.source.received_at_ns),
            receiver: letter.envelope.source.receiver.as_str().to_owned(),
            items: letter.items,
            bytes: letter.body.len() as u64,
            traces: letter.traces().iter().map(ToString::to_string).collect(),
            answer: None,
            payload: None,
            payload_base64: None,
        }
    }
}

/// The item as text, or its bytes in base64.
fn payload(letter: &Letter) -> (Option<String>, Option<String>) {
    let as_otlp = letter.decode().ok().and_then(|decoded| {
        let spans: Vec<_> = decoded.batch.items.iter().filter_map(|item| item.as_span()).collect();
        let is_otlp = !spans.is_empty() && spans.iter().all(|span| span.is_otlp());
        is_otlp.then(|| {
            let mut text = Vec::new();
            json::write_request(&mut text, spans);
            String::from_utf8(text).ok()
        })?
    });
    let text = as_otlp.or_else(|| String::from_utf8(letter.body.to_vec()).ok());
    if text.is_some() {
        return (text, None);
    }
    let mut coded = Vec::new();
    base64::write(&mut coded, &letter.body);
    (None, String::from_utf8(coded).ok())
}

fn time_text(unix_ns: u64) -> String {
    let mut text = Vec::new();
    rfc3339::write(&mut text, unix_ns);
    String::from_utf8_lossy(&text).into_owned()
}
