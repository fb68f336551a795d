// A question before what cannot be undone.

export interface Question {
  title: string;
  text: string;
  /** What the button says that does it. */
  act: string;
  /** To be typed first, for what takes much with it. */
  name?: string;
  answer(yes: boolean): void;
}

export const asked = $state<{ question: Question | null }>({ question: null });

export function confirm(question: Omit<Question, 'answer'>): Promise<boolean> {
  asked.question?.answer(false);
  return new Promise((resolve) => {
    asked.question = {
      ...question,
      answer(yes) {
        asked.question = null;
        resolve(yes);
      },
    };
  });
}
