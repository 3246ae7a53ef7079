//! What the processor's transaction writes: statements over arrays, and copies of what is new and much.

use crate::Error;
use crate::copy::{self, Rows};
use crate::merge::{ClaimWrite, ContentWrite, EntityWrite, Merge, RelationRow};

impl Merge {
    /// Takes back and adds what entities say of others.
    pub async fn write_relations(&mut self, gone: &[RelationRow], new: &[RelationRow]) -> Result<(), Error> {
        self.change_relations(include_str!("sql/delete_relations.sql"), gone).await?;
        if new.len() < copy::WORTHWHILE {
            return self.change_relations(include_str!("sql/insert_relations.sql"), new).await;
        }
        let mut rows = Rows::new(4);
        for relation in new {
            rows.row().number(relation.originator_id).number(relation.subject_id);
            rows.text(&relation.relation_type).text(&relation.target_ref);
        }
        rows.copy(copy::RELATIONS, self.connection()).await
    }

    async fn change_relations(&mut self, statement: &'static str, rows: &[RelationRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let originators: Vec<i64> = rows.iter().map(|row| row.originator_id).collect();
        let subjects: Vec<i64> = rows.iter().map(|row| row.subject_id).collect();
        let types: Vec<&str> = rows.iter().map(|row| row.relation_type.as_str()).collect();
        let targets: Vec<&str> = rows.iter().map(|row| row.target_ref.as_str()).collect();
        let statement = sqlx::query(statement).bind(originators).bind(subjects).bind(types).bind(targets);
        statement.execute(self.connection()).await?;
        Ok(())
    }

    /// Writes claims as they are folded anew.
    pub async fn write_claims(&mut self, claims: &[ClaimWrite]) -> Result<(), Error> {
        let is_new = |claim: &&ClaimWrite| self.is_new(claim.entity_id, &claim.source);
        let (new, changed): (Vec<&ClaimWrite>, Vec<&ClaimWrite>) = claims.iter().partition(is_new);
        if new.len() < copy::WORTHWHILE {
            return self.upsert_claims(&claims.iter().collect::<Vec<_>>()).await;
        }
        self.upsert_claims(&changed).await?;
        let mut rows = Rows::new(8);
        for claim in new {
            let standing = claim.claim.standing();
            rows.row().number(claim.entity_id).text(&claim.source).number(claim.newest).truth(standing.is_some());
            rows.bytes(standing.as_ref().and_then(|standing| standing.key.as_deref()).map(str::as_bytes));
            rows.bytes(claim.hash.as_deref().map(str::as_bytes)).text(&fold(claim));
            rows.truth(standing.is_some_and(|standing| standing.released));
        }
        rows.copy(copy::CLAIMS, self.connection()).await
    }

    async fn upsert_claims(&mut self, claims: &[&ClaimWrite]) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = claims.iter().map(|claim| claim.entity_id).collect();
        let sources: Vec<&str> = claims.iter().map(|claim| claim.source.as_str()).collect();
        let newest: Vec<i64> = claims.iter().map(|claim| claim.newest).collect();
        let standings: Vec<_> = claims.iter().map(|claim| claim.claim.standing()).collect();
        let present: Vec<bool> = standings.iter().map(Option::is_some).collect();
        let released: Vec<bool> =
            standings.iter().map(|standing| standing.as_ref().is_some_and(|standing| standing.released)).collect();
        let keys: Vec<Option<String>> = standings.into_iter().map(|standing| standing?.key).collect();
        let hashes: Vec<Option<&str>> = claims.iter().map(|claim| claim.hash.as_deref()).collect();
        let folds: Vec<String> = claims.iter().map(|claim| fold(claim)).collect();
        let statement = sqlx::query(include_str!("sql/write_claims.sql"));
        let statement =
            statement.bind(ids).bind(sources).bind(newest).bind(present).bind(keys).bind(hashes).bind(folds);
        statement.bind(released).execute(self.connection()).await?;
        Ok(())
    }

    /// Removes contents, then writes new ones.
    pub async fn write_contents(&mut self, gone: &[(i64, String)], new: &[ContentWrite]) -> Result<(), Error> {
        if !gone.is_empty() {
            let (ids, sources): (Vec<i64>, Vec<String>) = gone.iter().cloned().unzip();
            sqlx::query(include_str!("sql/clear_contents.sql"))
                .bind(ids)
                .bind(sources)
                .execute(self.connection())
                .await?;
        }
        let (known, new): (Vec<&ContentWrite>, Vec<&ContentWrite>) = new.iter().partition(|content| content.is_known);
        self.change_contents(&known, include_str!("sql/change_contents.sql")).await?;
        // A claim that was not there has none; one that was withdrawn may have been, and something may stand there.
        let is_new = |content: &&ContentWrite| self.is_new(content.entity_id, &content.source);
        let (new, unknown): (Vec<&ContentWrite>, Vec<&ContentWrite>) = new.into_iter().partition(is_new);
        let (new, unknown) = match new.len() < copy::WORTHWHILE {
            true => (Vec::new(), [new, unknown].concat()),
            false => (new, unknown),
        };
        self.change_contents(&unknown, include_str!("sql/write_contents.sql")).await?;
        if new.is_empty() {
            return Ok(());
        }
        let mut rows = Rows::new(5);
        for content in new {
            rows.row().number(content.entity_id).text(&content.source);
            rows.bytes(content.body.as_ref().and_then(|body| body.as_deref()));
            rows.bytes(content.raw.as_ref().and_then(|raw| raw.as_deref()));
            rows.bytes(content.error.as_ref().and_then(|error| error.as_deref()).map(str::as_bytes));
        }
        rows.copy(copy::CONTENTS, self.connection()).await
    }

    /// All of them are known, or none.
    async fn change_contents(&mut self, contents: &[&ContentWrite], text: &'static str) -> Result<(), Error> {
        let Some(first) = contents.first() else { return Ok(()) };
        let statement = sqlx::query(text)
            .bind(contents.iter().map(|content| content.entity_id).collect::<Vec<_>>())
            .bind(contents.iter().map(|content| content.source.as_str()).collect::<Vec<_>>())
            .bind(contents.iter().map(|content| content.body.as_ref()?.as_deref()).collect::<Vec<_>>())
            .bind(contents.iter().map(|content| content.raw.as_ref()?.as_deref()).collect::<Vec<_>>())
            .bind(contents.iter().map(|content| content.error.as_ref()?.as_deref()).collect::<Vec<_>>());
        let statement = match first.is_known {
            false => statement,
            true => statement
                .bind(contents.iter().map(|content| content.body.is_some()).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.raw.is_some()).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.error.is_some()).collect::<Vec<_>>()),
        };
        statement.execute(self.connection()).await?;
        Ok(())
    }

    /// Writes who is shown.
    pub async fn write_entities(&mut self, entities: &[EntityWrite]) -> Result<(), Error> {
        if entities.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = entities.iter().map(|entity| entity.id).collect();
        let born: Vec<Option<i64>> = entities.iter().map(|entity| entity.born).collect();
        let settled: Vec<Option<i64>> = entities.iter().map(|entity| entity.settled_born).collect();
        let winners: Vec<Option<&str>> = entities.iter().map(|entity| entity.winner.as_deref()).collect();
        let revisions: Vec<i64> = entities.iter().map(|entity| entity.revision).collect();
        let orphans: Vec<bool> = entities.iter().map(|entity| entity.orphan).collect();
        let statement = sqlx::query(include_str!("sql/write_entities.sql"));
        let statement = statement.bind(ids).bind(born).bind(settled).bind(winners).bind(revisions).bind(orphans);
        statement.execute(self.connection()).await?;
        Ok(())
    }
}

fn fold(claim: &ClaimWrite) -> String {
    serde_json::to_string(&claim.claim).expect("a claim is plain data")
}
